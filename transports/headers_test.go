package transports_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gotidings/tidings/transports"
)

func TestTopicIsTheTypeUnlessSaidOtherwise(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		metadata, want message.Metadata
	}{
		{nil, message.Metadata{"tidings_topic": "a"}},
		{message.Metadata{}, message.Metadata{"tidings_topic": "a"}},
		{message.Metadata{"ce_type": "a"}, message.Metadata{"ce_type": "a"}},
		{message.Metadata{"ce_type": "b"}, message.Metadata{"ce_type": "b", "tidings_topic": "a"}},
		{message.Metadata{"ce_type": "a", "tidings_topic": "stale"}, message.Metadata{"ce_type": "a"}},
		{message.Metadata{"tidings_topic": "stale"}, message.Metadata{"tidings_topic": "a"}},
	} {
		msg := &message.Message{Metadata: c.metadata}
		transports.SetTopic(msg, "a")
		if diff := cmp.Diff(c.want, msg.Metadata); diff != "" {
			t.Error(diff)
		}
		if topic := transports.Topic(msg); topic != "a" {
			t.Errorf("with %v the topic is %q", msg.Metadata, topic)
		}
	}
	if topic := transports.Topic(&message.Message{}); topic != "" {
		t.Errorf("without metadata the topic is %q", topic)
	}
}

func TestKeyIsSourceAndID(t *testing.T) {
	t.Parallel()
	msg := message.NewMessage("1", nil)
	msg.Metadata["ce_source"] = "here"
	want := transports.EventKey{Source: "here", ID: "1"}
	if got := transports.KeyOf(msg); got != want {
		t.Errorf("got %v", got)
	}
	if got := (transports.Poisoned{Message: msg}).Key(); got != want {
		t.Errorf("got %v", got)
	}
}

func TestPoisonedSurvivesItsHeaders(t *testing.T) {
	t.Parallel()
	at := time.Date(2024, 2, 29, 23, 59, 59, 123456789, time.UTC)
	full := transports.Poisoned{
		Reason: "a reason\nof two lines", ErrorType: "*net.OpError", Stack: "goroutine 1 [running]:",
		Attempts: 7, FirstFailure: at, LastFailure: at.Add(time.Hour).In(time.FixedZone("", 3600)),
		Subscription: "shop.mail", Topic: "order.created", Service: "shop", Host: "host-1",
	}
	for name, want := range map[string]transports.Poisoned{"full": full, "empty": {}} {
		want.Message = message.NewMessage("1", nil)
		want.Message.Metadata["own"] = "kept"
		transports.WritePoisoned(want)
		got := transports.ReadPoisoned(want.Message)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(transports.Poisoned{}, "Message")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if got.Message != want.Message || got.Message.Metadata["own"] != "kept" {
			t.Errorf("%s: the message is %v", name, got.Message)
		}
		for key := range want.Message.Metadata {
			if key != "own" && !strings.HasPrefix(key, transports.HeaderPrefix) {
				t.Errorf("%s: header %q lacks the prefix", name, key)
			}
		}
	}
	// A second failure replaces the first.
	msg := message.NewMessage("1", nil)
	full.Message = msg
	transports.WritePoisoned(full)
	second := transports.Poisoned{Message: msg, Reason: "again"}
	transports.WritePoisoned(second)
	if diff := cmp.Diff(second, transports.ReadPoisoned(msg), cmpopts.IgnoreFields(transports.Poisoned{}, "Message")); diff != "" {
		t.Error(diff)
	}
}

func TestUnreadableHeadersAreZero(t *testing.T) {
	t.Parallel()
	msg := message.NewMessage("1", nil)
	for _, s := range []string{"", "three", "-1", "+1", "1.5", " 1", "0x10", "4294967296", "9223372036854775807", "99999999999999999999"} {
		msg.Metadata[transports.HeaderAttempts] = s
		if n := transports.Attempts(msg); n != 0 {
			t.Errorf("%q attempts are read as %d", s, n)
		}
	}
	for s, want := range map[string]int{"0": 0, "1": 1, "007": 7, "1000000": 1_000_000} {
		msg.Metadata[transports.HeaderAttempts] = s
		if n := transports.Attempts(msg); n != want {
			t.Errorf("%q attempts are read as %d", s, n)
		}
	}
	if n := transports.Attempts(&message.Message{}); n != 0 {
		t.Errorf("without a header there are %d attempts", n)
	}
	msg.Metadata[transports.HeaderFirstFailure] = "yesterday"
	if at := transports.ReadPoisoned(msg).FirstFailure; !at.IsZero() {
		t.Errorf("yesterday is read as %v", at)
	}
}

func TestStripHeadersKeepsTheTopicAndForeignOnes(t *testing.T) {
	t.Parallel()
	md := message.Metadata{"ce_type": "a", "tiding": "kept", transports.HeaderTopic: "topic"}
	msg := &message.Message{Metadata: md}
	want := message.Metadata{"ce_type": "a", "tiding": "kept", transports.HeaderTopic: "topic"}
	transports.WritePoisoned(transports.Poisoned{Message: msg, Reason: "r", Attempts: 3, LastFailure: time.Now()})
	md[transports.HeaderDeferredSince] = "then"
	transports.StripHeaders(md)
	if diff := cmp.Diff(want, md); diff != "" {
		t.Error(diff)
	}
	transports.StripHeaders(nil)
}

package memory

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/transports"
)

func TestPublishedMessageIsACopy(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	one, two := subscribe(t, tr, sub("one", "a")), subscribe(t, tr, sub("two", "a"))
	sent := message.NewMessageWithContext(t.Context(), "1", []byte("payload"))
	sent.Metadata["key"] = "value"
	if err := tr.Publish("a", sent); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"key": "value"}; !maps.Equal(sent.Metadata, want) {
		t.Errorf("Publish changed the metadata to %v", sent.Metadata)
	}
	copy(sent.Payload, "reused!")
	sent.UUID = "2"
	sent.Metadata["key"] = "reused"

	// Not what the publisher makes of it, nor another subscription, nor this one
	// in an earlier delivery, is seen.
	for _, ch := range []<-chan *message.Message{one, one, two} {
		msg := receive(t, ch)
		if msg.UUID != "1" || string(msg.Payload) != "payload" || msg.Metadata["key"] != "value" || msg.Metadata["new"] != "" {
			t.Fatalf("received %s %q %v", msg.UUID, msg.Payload, msg.Metadata)
		}
		msg.UUID = "3"
		copy(msg.Payload, "changed")
		msg.Metadata["key"] = "changed"
		msg.Metadata["new"] = "added"
		msg.Nack()
	}
}

func TestMetadataArrivesAsItIs(t *testing.T) {
	t.Parallel()
	awkward := message.Metadata{
		"":                 "empty key",
		"empty":            "",
		"blank":            " \t\r\n",
		"nul":              "a\x00b",
		"invalid utf-8":    "\xff\xfe\x80",
		"\xff":             "invalid utf-8 in the key",
		"schlüssel 鍵 🔑":    "wert 値 💎",
		"control":          "\x01\x7f\u0085",
		"quotes":           `"'\` + "`",
		"a=b&c;d, e: f":    "%00%zz",
		"long":             strings.Repeat("x", 1<<20),
		"ce_type":          "a",
		"_watermill_thing": "kept",
	}
	tr := newTransport(t, Config{})
	ch := subscribe(t, tr, sub("s", "a"))
	sent := newMessage(t.Context(), "1")
	sent.Metadata = awkward
	if err := tr.Publish("a", sent); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(awkward, receive(t, ch).Metadata); diff != "" {
		t.Error(diff)
	}
}

func TestBareMessages(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	ch := subscribe(t, tr, sub("s", "a"))
	for name, sent := range map[string]*message.Message{
		"nothing at all": {},
		"empty payload":  {Metadata: message.Metadata{"ce_type": "a"}, Payload: []byte{}},
		"binary":         {UUID: "\x00\xff", Payload: []byte{0, 1, 2, 0xff}},
		"1 MiB":          {Payload: []byte(strings.Repeat("x", 1<<20))},
	} {
		if err := tr.Publish("a", sent); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := receive(t, ch)
		if got.UUID != sent.UUID || string(got.Payload) != string(sent.Payload) {
			t.Errorf("%s: received %q with %d bytes", name, got.UUID, len(got.Payload))
		}
		if transports.Topic(got) != "a" {
			t.Errorf("%s: the topic is %q", name, transports.Topic(got))
		}
		got.Metadata["writable"] = "yes" // panics for a nil map
		if !got.Ack() {
			t.Errorf("%s: can't be acknowledged", name)
		}
	}
}

func TestDeliveredMessageKnowsItsTopic(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	ch := subscribe(t, tr, sub("s", "#"))
	for _, metadata := range []message.Metadata{
		{},
		{"ce_type": "topic"},
		{"ce_type": "type"},
		{transports.HeaderTopic: "where it came from before"},
		{transports.HeaderTopic: "where it came from before", "ce_type": "topic"},
	} {
		sent := newMessage(t.Context(), "1")
		sent.Metadata = metadata
		if err := tr.Publish("topic", sent); err != nil {
			t.Fatal(err)
		}
		got := receive(t, ch)
		got.Ack()
		if topic := transports.Topic(got); topic != "topic" {
			t.Errorf("published with %v: the topic is %q", metadata, topic)
		}
	}
}

func TestTooLargePayloadIsRefused(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{MaxMessageBytes: 4})
	for range 2 { // without and with a subscription
		if err := tr.Publish("a", message.NewMessage("1", []byte("12345"))); !errors.Is(err, transports.ErrTooLarge) {
			t.Errorf("5 bytes: %v; want ErrTooLarge", err)
		}
		declare(t, tr, sub("s", "a"))
	}
	if err := tr.Publish("a", message.NewMessage("1", []byte("1234"))); err != nil {
		t.Errorf("4 bytes: %v", err)
	}
	if d := depth(t, tr, "s"); d.Ready != 1 {
		t.Errorf("depth is %+v", d)
	}
}

func TestInvalidTopicIsRefused(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	declare(t, tr, sub("s", "#"))
	for _, topic := range []string{"", "a\nb", "a\x00", "\xff"} {
		for range 2 { // the second is answered from memory
			if err := tr.Publish(topic, newMessage(t.Context(), "1")); err == nil {
				t.Errorf("topic %q was accepted", topic)
			}
		}
	}
	if d := depth(t, tr, "s"); d.Ready != 0 {
		t.Errorf("depth is %+v", d)
	}
}

func TestManyTopicsDoNotFillTheMemory(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{QueueSize: 3 * maxRoutes})
	declare(t, tr, sub("s", "#"))
	ids := numbers(1, maxRoutes+10)
	for _, id := range ids {
		publish(t, tr, "topic."+id, id)
		if n := len(tr.broker.routes); n > maxRoutes {
			t.Fatalf("%d routes are kept", n)
		}
	}
	if d := depth(t, tr, "s"); d.Ready != len(ids) {
		t.Errorf("%d messages arrived; want %d", d.Ready, len(ids))
	}
}

func TestPublishErrorSaysWhichMessagesFailed(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{MaxMessageBytes: 3})
	declare(t, tr, wide("s", "#"))
	small, large := message.NewMessage("small", []byte("123")), message.NewMessage("large", []byte("1234"))

	wantFailures := func(err error, want ...int) {
		t.Helper()
		publishErr, ok := errors.AsType[*transports.PublishError](err)
		if !ok {
			t.Fatalf("got %v; want a PublishError", err)
		}
		var got []int
		for _, f := range publishErr.Failures {
			got = append(got, f.Index)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	err := tr.Publish("a", small, large, small, large)
	wantFailures(err, 1, 3)
	if !errors.Is(err, transports.ErrTooLarge) {
		t.Errorf("%v; want ErrTooLarge", err)
	}
	wantFailures(tr.PublishBatch(t.Context(), []transports.Outgoing{
		{Topic: "", Message: small}, {Topic: "b", Message: small}, {Topic: "c", Message: large},
	}), 0, 2)
	if d := depth(t, tr, "s"); d.Ready != 3 {
		t.Errorf("depth is %+v; want the three small ones", d)
	}

	// One message alone needs no index.
	for _, err := range []error{
		tr.Publish("a", large),
		tr.PublishBatch(t.Context(), []transports.Outgoing{{Topic: "a", Message: large}}),
	} {
		if _, ok := errors.AsType[*transports.PublishError](err); ok || !errors.Is(err, transports.ErrTooLarge) {
			t.Errorf("got %#v; want ErrTooLarge alone", err)
		}
	}
}

func TestPublishNothing(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	if err := tr.Publish("a"); err != nil {
		t.Error(err)
	}
	if err := tr.PublishBatch(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestPublishWithEndedContextPublishesNothing(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	declare(t, tr, sub("s", "a"))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errSample)
	ended, alive := newMessage(ctx, "1"), newMessage(t.Context(), "2")
	if err := tr.Publish("a", ended); !errors.Is(err, errSample) {
		t.Errorf("got %v; want the context's cause", err)
	}
	if err := tr.Publish("a", ended, alive); !errors.Is(err, errSample) {
		t.Errorf("got %v; want the cause of the first message's context", err)
	}
	if err := tr.PublishBatch(ctx, []transports.Outgoing{{Topic: "a", Message: alive}}); !errors.Is(err, errSample) {
		t.Errorf("got %v; want the cause of the argument", err)
	}
	if d := depth(t, tr, "s"); d.Ready != 0 {
		t.Errorf("depth is %+v", d)
	}
	// The batch takes its context as an argument, not from the messages.
	if err := tr.PublishBatch(t.Context(), []transports.Outgoing{{Topic: "a", Message: ended}}); err != nil {
		t.Error(err)
	}
}

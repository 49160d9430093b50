package memory

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/transports"
)

func poison(t *testing.T, tr *Transport, name, source, id, reason string) {
	t.Helper()
	msg := newMessage(t.Context(), id)
	msg.Metadata["ce_source"] = source
	msg.Metadata["ce_type"] = "a"
	transports.WritePoisoned(transports.Poisoned{Message: msg, Reason: reason, Attempts: 3, LastFailure: time.Now(), Subscription: name})
	if err := tr.Poison(t.Context(), name, msg); err != nil {
		t.Fatal(err)
	}
	msg.Metadata["ce_source"] = "changed after Poison"
	copy(msg.Payload, "changed")
}

// listed returns id and reason of what Poisoned lists.
func listed(t *testing.T, tr *Transport, name string) []string {
	t.Helper()
	var list []string
	for p, err := range tr.Poisoned(t.Context(), name, transports.PoisonPage{}) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p.Message.UUID+" "+p.Reason)
	}
	return list
}

// handles returns those of the events of these ids.
func handles(t *testing.T, tr *Transport, name string, ids ...string) []transports.PoisonHandle {
	t.Helper()
	found := make([]transports.PoisonHandle, len(ids))
	for p, err := range tr.Poisoned(t.Context(), name, transports.PoisonPage{}) {
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.Index(ids, p.Message.UUID); i >= 0 && found[i] == "" {
			found[i] = p.Handle
		}
	}
	return found
}

func TestPoisonedMessagesAreListedOldestFirst(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	declare(t, tr, sub("s", "a"))
	declare(t, tr, sub("other", "a"))
	if list := listed(t, tr, "s"); list != nil {
		t.Errorf("an empty queue lists %v", list)
	}
	for i, id := range []string{"c", "a", "b"} {
		poison(t, tr, "s", "here", id, fmt.Sprint("reason ", i))
	}
	want := []string{"c reason 0", "a reason 1", "b reason 2"}
	for range 2 { // listing changes nothing, nor does what one makes of the list
		if diff := cmp.Diff(want, listed(t, tr, "s")); diff != "" {
			t.Error(diff)
		}
		for p, err := range tr.Poisoned(t.Context(), "s", transports.PoisonPage{}) {
			if err != nil || p.Attempts != 3 || p.Subscription != "s" || p.LastFailure.IsZero() || string(p.Message.Payload) != p.Message.UUID {
				t.Errorf("listed as %+v", p)
			}
			p.Message.Metadata[transports.HeaderPoisonReason] = "changed"
			copy(p.Message.Payload, "changed")
		}
		if d := depth(t, tr, "s"); d != (transports.Depth{Poisoned: 3}) {
			t.Errorf("depth is %+v", d)
		}
	}
	if list := listed(t, tr, "other"); list != nil {
		t.Errorf("another subscription lists %v", list)
	}
}

func TestListingMayStopAndMayActOnWhatItLists(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	declare(t, tr, sub("s", "a"))
	for _, id := range numbers(1, 4) {
		poison(t, tr, "s", "here", id, "r")
	}
	for _, err := range tr.Poisoned(t.Context(), "s", transports.PoisonPage{}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	for p, err := range tr.Poisoned(t.Context(), "s", transports.PoisonPage{}) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.DiscardPoisoned(t.Context(), "s", p.Handle); err != nil {
			t.Fatal(err)
		}
	}
	if d := depth(t, tr, "s"); d.Poisoned != 0 {
		t.Errorf("depth is %+v", d)
	}
}

func TestRequeuedPoisonStartsAfresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 2})
		ch, other := subscribe(t, tr, sub("s", "a")), subscribe(t, tr, sub("other", "a"))
		for _, id := range numbers(1, 4) {
			poison(t, tr, "s", "here", id, "r")
		}
		publish(t, tr, "a", "first", "second") // full: poison goes over the bound
		ackIDs(t, other, "first", "second")
		n, err := tr.RequeuePoisoned(t.Context(), "s", handles(t, tr, "s", "3", "1")...)
		if n != 2 || err != nil {
			t.Errorf("requeued %d, %v; want 2", n, err)
		}
		if diff := cmp.Diff([]string{"2 r", "4 r"}, listed(t, tr, "s")); diff != "" {
			t.Error(diff)
		}
		ackIDs(t, ch, "first", "second")
		msg := receiveIDs(t, ch, "1")[0] // in the order of their poisoning
		want := message.Metadata{"ce_source": "here", "ce_type": "a"}
		if diff := cmp.Diff(want, msg.Metadata); diff != "" {
			t.Error(diff)
		}
		msg.Ack()
		ackIDs(t, ch, "3")
		receiveNothing(t, other)
		wantDepth(t, tr, "s", transports.Depth{Poisoned: 2})
	})
}

func TestRequeuedPoisonKeepsItsTopic(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	ch := subscribe(t, tr, sub("s", "topic"))
	publish(t, tr, "topic", "1")
	msg := receive(t, ch)
	if err := tr.Poison(t.Context(), "s", msg); err != nil {
		t.Fatal(err)
	}
	msg.Ack()
	if n, err := tr.RequeuePoisoned(t.Context(), "s", handles(t, tr, "s", "1")...); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if topic := transports.Topic(receive(t, ch)); topic != "topic" {
		t.Errorf("the topic is %q", topic)
	}
}

// A crash between poisoning and acknowledging leaves copies of one event.
func TestCopiesOfAPoisonedEventAreOne(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	ch := subscribe(t, tr, wide("s", "a"))
	poison(t, tr, "s", "here", "1", "first")
	poison(t, tr, "s", "here", "2", "r")
	poison(t, tr, "s", "here", "1", "second")
	poison(t, tr, "s", "elsewhere", "1", "another event")
	if diff := cmp.Diff([]string{"1 first", "2 r", "1 another event"}, listed(t, tr, "s")); diff != "" {
		t.Error(diff)
	}
	if d := depth(t, tr, "s"); d.Poisoned != 4 {
		t.Errorf("depth is %+v; want every copy", d)
	}
	if n, err := tr.RequeuePoisoned(t.Context(), "s", handles(t, tr, "s", "1")...); n != 1 || err != nil {
		t.Errorf("requeued %d, %v; want 1 event", n, err)
	}
	receiveIDs(t, ch, "1", "1")
	if diff := cmp.Diff([]string{"2 r", "1 another event"}, listed(t, tr, "s")); diff != "" {
		t.Error(diff)
	}
}

func TestPoisonQueueIsBounded(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{PoisonSize: 2})
	declare(t, tr, sub("s", "a"))
	declare(t, tr, sub("other", "a"))
	poison(t, tr, "s", "here", "1", "r")
	poison(t, tr, "s", "here", "2", "r")
	if err := tr.Poison(t.Context(), "s", newMessage(t.Context(), "3")); !errors.Is(err, transports.ErrPoisonQueueFull) {
		t.Errorf("got %v; want ErrPoisonQueueFull", err)
	}
	poison(t, tr, "other", "here", "3", "r")
	if _, err := tr.DiscardPoisoned(t.Context(), "s", handles(t, tr, "s", "1")...); err != nil {
		t.Fatal(err)
	}
	poison(t, tr, "s", "here", "3", "r")
}

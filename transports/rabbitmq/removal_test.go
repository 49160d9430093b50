package rabbitmq

import (
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// A caller that subscribes right after a removal gets every message: none goes to the old
// consumers, whose channels are closed, in this process and in others.
func TestSubscribeAfterRemoval(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	other := b.open()
	s := b.sub("s", 1)
	for range 10 {
		before, elsewhere := b.subscribe(b.Transport, s), b.subscribe(other, s)
		b.remove(s.Name)
		ctx, stop := contextWithStop(t)
		after, err := b.Subscribe(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		b.publish("1")
		b.ack(after, "1")
		b.closes(before)
		b.closes(elsewhere)
		stop()
		b.closes(after)
	}
}

// A consumer loses its queue and hears of it, even if there is one of that name again at
// once: it consumes that one.
func TestReplacedQueueIsNoticed(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for i := range 3 {
		s := b.sub(strconv.Itoa(i), 2)
		causes := interruptions(&s)
		ctx, stop := contextWithStop(t)
		ch, err := b.Subscribe(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		b.publish("1")
		b.ack(ch, "1") // more than one at a time from now on
		queue := b.names.queue(s.Name)
		if _, err := b.raw.QueueDelete(queue, false, false, false); err != nil {
			t.Fatal(err)
		}
		if _, err := b.raw.QueueDeclare(queue, true, false, false, false, b.subscriptionArgs(s)); err != nil {
			t.Fatal(err)
		}
		b.awaitCause(causes, "the end of the interruption", func(err error) bool { return err == nil })
		b.publish("2")
		b.ack(ch, "2")
		stop()
		b.closes(ch)
	}
}

// A removal ends the consumers of its own process even where its note does not tell: an
// earlier one has expired since they began, so there are no more than before.
func TestRemovalEndsItsOwnConsumers(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.removedExpiry = 10 * time.Second
	s := b.sub("s", 1)
	b.remove(s.Name)
	ch := b.subscribe(b.Transport, s)
	b.eventually("the note has expired", func() bool {
		n, err := b.removals(t.Context(), s.Name)
		return n == 0 && err == nil
	})
	b.remove(s.Name)
	b.closes(ch)
	if _, err := b.raw.QueueDelete(b.names.removed(s.Name), false, false, false); err != nil { // else it has other arguments
		t.Error(err)
	}
}

// remove removes a subscription.
func (b *bench) remove(subscription string) {
	b.Helper()
	if err := b.RemoveSubscription(b.Context(), subscription); err != nil {
		b.Fatal(err)
	}
}

// closes waits until a subscription's channel is closed. No message may come first.
func (b *bench) closes(ch <-chan *message.Message) {
	b.Helper()
	select {
	case msg, open := <-ch:
		if open {
			b.Fatalf("received %s; want a closed channel", msg.UUID)
		}
	case <-time.After(testPatience):
		b.Fatalf("the channel is open after %v", testPatience)
	}
}

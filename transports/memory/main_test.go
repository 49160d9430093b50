package memory

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/goleak"

	"github.com/gotidings/tidings/transports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a transport that the test's end closes.
func newTransport(t *testing.T, cfg Config) *Transport {
	t.Helper()
	return connect(t, newBroker(t, cfg))
}

// newBroker returns a broker whose invariants are checked at the end.
func newBroker(t *testing.T, cfg Config) *Broker {
	t.Helper()
	b, err := NewBroker(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { checkInvariants(t, b) })
	return b
}

func connect(t *testing.T, b *Broker) *Transport {
	t.Helper()
	tr := b.Connect()
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// sub is a durable subscription to topics with the concurrency 1.
func sub(name string, topics ...string) transports.Subscription {
	return transports.Subscription{Name: name, Topics: topics, Concurrency: 1}
}

// wide is sub with a concurrency that no test reaches.
func wide(name string, topics ...string) transports.Subscription {
	return transports.Subscription{Name: name, Topics: topics, Concurrency: 1000}
}

func subscribe(t *testing.T, tr *Transport, s transports.Subscription) <-chan *message.Message {
	t.Helper()
	return subscribeContext(t.Context(), t, tr, s)
}

func subscribeContext(ctx context.Context, t *testing.T, tr *Transport, s transports.Subscription) <-chan *message.Message {
	t.Helper()
	ch, err := tr.Subscribe(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// declare makes a subscription that nobody consumes.
func declare(t *testing.T, tr *Transport, s transports.Subscription) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ch := subscribeContext(ctx, t, tr, s)
	cancel()
	for range ch {
		t.Error("a message in a new subscription")
	}
}

// newMessage returns a message whose id is also its payload.
func newMessage(ctx context.Context, id string) *message.Message {
	return message.NewMessageWithContext(ctx, id, []byte(id))
}

func publish(t *testing.T, tr *Transport, topic string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := tr.Publish(topic, newMessage(t.Context(), id)); err != nil {
			t.Errorf("publish %s: %v", id, err)
		}
	}
}

// publishLater publishes in a goroutine, for use in a bubble, and returns where
// the result will be.
func publishLater(ctx context.Context, tr *Transport, topic, id string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- tr.Publish(topic, newMessage(ctx, id)) }()
	synctest.Wait()
	return done
}

// numbers returns the ids from..to.
func numbers(from, to int) []string {
	var ids []string
	for i := from; i <= to; i++ {
		ids = append(ids, strconv.Itoa(i))
	}
	return ids
}

// receive takes the next message. In a bubble it fails at once when there is none.
func receive(t *testing.T, ch <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-ch:
		if !ok {
			t.Fatal("the channel is closed; want a message")
		}
		return msg
	case <-time.After(time.Minute):
		t.Fatal("no message")
		return nil
	}
}

// receiveIDs takes as many messages as there are ids, and wants these.
func receiveIDs(t *testing.T, ch <-chan *message.Message, ids ...string) []*message.Message {
	t.Helper()
	var msgs []*message.Message
	var got []string
	for range ids {
		msg := receive(t, ch)
		msgs, got = append(msgs, msg), append(got, msg.UUID)
	}
	if !slices.Equal(got, ids) {
		t.Fatalf("received %v; want %v", got, ids)
	}
	return msgs
}

// ackIDs is receiveIDs, each message being acknowledged before the next.
func ackIDs(t *testing.T, ch <-chan *message.Message, ids ...string) {
	t.Helper()
	for _, id := range ids {
		receiveIDs(t, ch, id)[0].Ack()
	}
}

// receiveNothing wants no message, however long one waits. For use in a bubble.
func receiveNothing(t *testing.T, ch <-chan *message.Message) {
	t.Helper()
	synctest.Wait()
	select {
	case msg, ok := <-ch:
		if ok {
			t.Fatalf("received %s; want nothing", msg.UUID)
		}
		t.Fatal("the channel is closed; want it open and empty")
	default:
	}
}

func wantClosed(t *testing.T, ch <-chan *message.Message) {
	t.Helper()
	select {
	case msg, ok := <-ch:
		if ok {
			t.Fatalf("received %s; want the channel to be closed", msg.UUID)
		}
	case <-time.After(time.Minute):
		t.Fatal("the channel is not closed")
	}
}

// pending wants the result of publishLater not to be there. For use in a bubble.
func pending(t *testing.T, done <-chan error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-done:
		t.Fatalf("publish returned %v; want it to block", err)
	default:
	}
}

// result wants the result of publishLater to be there. For use in a bubble.
func result(t *testing.T, done <-chan error) error {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-done:
		return err
	default:
		t.Fatal("publish still blocks")
		return nil
	}
}

func depth(t *testing.T, tr *Transport, name string) transports.Depth {
	t.Helper()
	d, err := tr.Depth(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wantDepth compares in a bubble, when everything has settled.
func wantDepth(t *testing.T, tr *Transport, name string, want transports.Depth) {
	t.Helper()
	synctest.Wait()
	if got := depth(t, tr, name); got != want {
		t.Fatalf("depth of %s is %+v; want %+v", name, got, want)
	}
}

// checkInvariants looks at the broker between two steps of whatever happens.
func checkInvariants(t *testing.T, b *Broker) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queues) != len(b.order) {
		t.Errorf("%d queues by name, %d in order", len(b.queues), len(b.order))
	}
	held := 0
	for _, q := range b.order {
		held += q.used
		if b.queues[q.name] != q || q.gone {
			t.Errorf("%s: registered wrongly", q.name)
		}
		inFlight := 0
		for _, c := range q.consumers {
			inFlight += c.inFlight
			if c.inFlight < 0 || c.inFlight > c.limit {
				t.Errorf("%s: %d in flight, limit %d", q.name, c.inFlight, c.limit)
			}
		}
		if sum := q.ready.n + len(q.delayed) + inFlight; q.used != sum {
			t.Errorf("%s: used is %d; ready %d, delayed %d, in flight %d", q.name, q.used, q.ready.n, len(q.delayed), inFlight)
		}
		for i := 1; i < q.ready.n; i++ {
			if q.ready.at(i-1).seq >= q.ready.at(i).seq {
				t.Errorf("%s: ready out of order at %d", q.name, i)
			}
		}
		if len(q.waiters) > 0 && !q.full() {
			t.Errorf("%s: %d publishers wait for room, and there is room", q.name, len(q.waiters))
		}
		for _, w := range q.waiters {
			if w.queue != q {
				t.Errorf("%s: a publisher waits here and does not know", q.name)
			}
		}
		for i, h := range q.holds {
			if slices.Contains(q.holds[:i], h) {
				t.Errorf("%s: held by %s twice", q.name, h.name)
			}
			if !h.full() || !slices.Contains(h.holding, q) {
				t.Errorf("%s: held by %s, which is not full or does not know", q.name, h.name)
			}
			if h.waitsFor(q) {
				t.Errorf("%s: held by %s in a circle", q.name, h.name)
			}
		}
		for _, h := range q.holding {
			if h.gone || !slices.Contains(h.holds, q) {
				t.Errorf("%s: holds %s, which is gone or does not know", q.name, h.name)
			}
		}
	}
	if b.held != held {
		t.Errorf("the broker holds %d messages; its queues %d", b.held, held)
	}
}

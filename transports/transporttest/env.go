package transporttest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/gotidings/tidings/transports"
)

// env is one test's place on the broker.
type env struct {
	*testing.T
	Harness
	Features

	id       string          // in every name of the test
	declared map[string]bool // subscriptions to remove
}

func newEnv(t *testing.T, h Harness, f Features) *env {
	t.Helper()
	e := &env{T: t, Harness: h, Features: f, id: h.Prefix + uuid.NewString()[:13], declared: make(map[string]bool)}
	t.Cleanup(e.removeAll) // the first to be registered runs last: every transport is closed then
	return e
}

// removeAll leaves the broker as it was, as far as the transport can.
func (e *env) removeAll() {
	if _, lacking := e.Lacks[Removal]; lacking || len(e.declared) == 0 {
		return
	}
	tr := e.Open(e.T)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.Context()), e.Patience)
	defer cancel()
	for name := range e.declared {
		if err := tr.(transports.SubscriptionRemover).RemoveSubscription(ctx, name); err != nil {
			e.Errorf("clean up %s: %v", name, err)
		}
	}
	if err := tr.Close(); err != nil {
		e.Errorf("clean up: close: %v", err)
	}
}

// open returns a connection that the test's end closes.
func (e *env) open() transports.Transport {
	e.Helper()
	return e.closing(e.Open(e.T))
}

func (e *env) closing(tr transports.Transport) transports.Transport {
	e.Cleanup(func() {
		if err := tr.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
	})
	return tr
}

// topic returns the test's own topic of a name, which may be a pattern.
func (e *env) topic(name string) string { return e.id + "." + name }

// name returns the test's own subscription of a name.
func (e *env) name(name string) string { return e.id + "." + name }

// sub is a durable subscription of the concurrency 1, with the test's own names.
func (e *env) sub(name string, topics ...string) transports.Subscription {
	s := transports.Subscription{Name: e.name(name), Concurrency: 1}
	for _, topic := range topics {
		s.Topics = append(s.Topics, e.topic(topic))
	}
	return s
}

// wide is sub with more concurrency than the test has messages.
func (e *env) wide(name string, topics ...string) transports.Subscription {
	s := e.sub(name, topics...)
	s.Concurrency = 100
	return s
}

func (e *env) subscribe(tr transports.Transport, s transports.Subscription) <-chan *message.Message {
	e.Helper()
	return e.subscribeContext(e.Context(), tr, s)
}

func (e *env) subscribeContext(ctx context.Context, tr transports.Transport, s transports.Subscription) <-chan *message.Message {
	e.Helper()
	if !s.Ephemeral {
		e.declared[s.Name] = true
	}
	ch, err := tr.Subscribe(ctx, s)
	if err != nil {
		e.Fatalf("subscribe %s: %v", s.Name, err)
	}
	return ch
}

// declare makes a subscription that nobody consumes. The test needs Durable.
func (e *env) declare(tr transports.Transport, s transports.Subscription) {
	e.Helper()
	ctx, cancel := context.WithCancel(e.Context())
	ch := e.subscribeContext(ctx, tr, s)
	cancel()
	e.wantClosed(ch)
}

// newMessage returns a message whose id is also its payload, with the attributes
// that make its key.
func (e *env) newMessage(id string) *message.Message {
	msg := message.NewMessageWithContext(e.Context(), id, []byte(id))
	msg.Metadata["ce_source"] = e.id
	return msg
}

func (e *env) key(id string) transports.EventKey {
	return transports.EventKey{Source: e.id, ID: id}
}

// publish publishes one message after the other to the test's own topic.
func (e *env) publish(tr transports.Transport, topic string, ids ...string) {
	e.Helper()
	for _, id := range ids {
		if err := tr.Publish(e.topic(topic), e.newMessage(id)); err != nil {
			e.Fatalf("publish %s: %v", id, err)
		}
	}
}

// publishLater publishes to the topic a in a goroutine and returns where the result will be.
func (e *env) publishLater(ctx context.Context, tr transports.Transport, id string) <-chan error {
	msg := e.newMessage(id)
	msg.SetContext(ctx)
	done := make(chan error, 1)
	go func() { done <- tr.Publish(e.topic("a"), msg) }()
	return done
}

// receive takes the next message.
func (e *env) receive(ch <-chan *message.Message) *message.Message {
	e.Helper()
	select {
	case msg, ok := <-ch:
		if !ok {
			e.Fatal("the channel is closed; want a message")
		}
		return msg
	case <-e.patience():
		e.Fatalf("no message after %s", e.Patience)
		return nil
	}
}

// receiveIDs takes as many messages as there are ids, and wants these, in any
// order. It returns them in the order of ids.
func (e *env) receiveIDs(ch <-chan *message.Message, ids ...string) []*message.Message {
	e.Helper()
	msgs := make([]*message.Message, len(ids))
	for range ids {
		msg := e.receive(ch)
		i := slices.Index(ids, msg.UUID)
		if i < 0 || msgs[i] != nil {
			e.Fatalf("received %q; want each of %q, once", msg.UUID, ids)
		}
		msgs[i] = msg
	}
	return msgs
}

// ackIDs takes messages, acknowledging each before the next, and wants these ids
// in any order.
func (e *env) ackIDs(ch <-chan *message.Message, ids ...string) {
	e.Helper()
	got := make([]string, 0, len(ids))
	for range ids {
		msg := e.receive(ch)
		msg.Ack()
		got = append(got, msg.UUID)
	}
	e.wantIDs(got, ids...)
}

// ackInOrder is ackIDs, in this order.
func (e *env) ackInOrder(ch <-chan *message.Message, ids ...string) {
	e.Helper()
	for i, id := range ids {
		msg := e.receive(ch)
		if msg.UUID != id {
			e.Fatalf("message %d is %q; want the order %q", i, msg.UUID, ids)
		}
		msg.Ack()
	}
}

// quiet wants the channels to be open and nothing to arrive.
func (e *env) quiet(channels ...<-chan *message.Message) {
	e.Helper()
	<-time.After(e.Quiet)
	for _, ch := range channels {
		select {
		case msg, ok := <-ch:
			if !ok {
				e.Fatal("the channel is closed; want it open and empty")
			}
			e.Fatalf("received %q; want nothing", msg.UUID)
		default:
		}
	}
}

// wantClosed wants no message and the channel to be closed.
func (e *env) wantClosed(ch <-chan *message.Message) {
	e.Helper()
	select {
	case msg, ok := <-ch:
		if ok {
			e.Fatalf("received %q; want the channel to be closed", msg.UUID)
		}
	case <-e.patience():
		e.Fatalf("the channel is not closed after %s", e.Patience)
	}
}

// wantDone waits until ctx ends.
func (e *env) wantDone(ctx context.Context, what string) {
	e.Helper()
	select {
	case <-ctx.Done():
	case <-e.patience():
		e.Fatalf("%s has not ended after %s", what, e.Patience)
	}
}

// result waits for the result of publishLater.
func (e *env) result(done <-chan error) error {
	e.Helper()
	select {
	case err := <-done:
		return err
	case <-e.patience():
		e.Fatalf("publish blocks after %s", e.Patience)
		return nil
	}
}

// pending wants the result of publishLater not to be there.
func (e *env) pending(done <-chan error) {
	e.Helper()
	select {
	case err := <-done:
		e.Fatalf("publish returned %v; want it to block", err)
	case <-time.After(e.Quiet):
	}
}

// wantIDs wants each of ids once, in any order.
func (e *env) wantIDs(got []string, ids ...string) {
	e.Helper()
	got, want := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(ids))
	if !slices.Equal(got, want) {
		e.Fatalf("received %q; want %q", got, want)
	}
}

// withoutOwn returns the metadata without the library's own headers, such as the
// topic, which transports add.
func withoutOwn(md message.Metadata) message.Metadata {
	md = maps.Clone(md)
	maps.DeleteFunc(md, func(key, _ string) bool { return strings.HasPrefix(key, transports.HeaderPrefix) })
	return md
}

// patience is a channel that ends a wait for what must happen.
func (e *env) patience() <-chan time.Time { return time.After(e.Patience) }

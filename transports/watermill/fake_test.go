package watermill

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

var errSample = errors.New("a sample error")

// fakeSubscriber gives what a test offers, as Watermill's contract has it: it ends a
// message's context when it has seen the verdict, and a channel when its own ends.
type fakeSubscriber struct {
	subscribe func(ctx context.Context, topic string) error // nil: succeeds
	onClose   func() error                                  // nil: succeeds
	deaf      bool                                          // a channel does not end with its context

	mu     sync.Mutex
	calls  []*fakeSubscription
	closed int
}

type fakeSubscription struct {
	ctx   context.Context //nolint:containedctx // what it was called with
	topic string
	ch    chan *message.Message
	once  sync.Once

	offers sync.WaitGroup // that may still send
}

func (f *fakeSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if f.subscribe != nil {
		if err := f.subscribe(ctx, topic); err != nil {
			return nil, err
		}
	}
	s := &fakeSubscription{ctx: ctx, topic: topic, ch: make(chan *message.Message)}
	if !f.deaf {
		context.AfterFunc(ctx, s.end)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, s)
	return s.ch, nil
}

func (f *fakeSubscriber) Close() error {
	f.mu.Lock()
	f.closed++
	calls := slices.Clone(f.calls)
	f.mu.Unlock()
	if f.onClose != nil {
		return f.onClose()
	}
	if !f.deaf {
		for _, s := range calls {
			s.end()
		}
	}
	return nil
}

func (f *fakeSubscriber) closes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// topics returns what was subscribed to, in order.
func (f *fakeSubscriber) topics() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var topics []string
	for _, s := range f.calls {
		topics = append(topics, s.topic)
	}
	return topics
}

// on returns the first subscription to a topic.
func (f *fakeSubscriber) on(t *testing.T, topic string) *fakeSubscription {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.calls {
		if s.topic == topic {
			return s
		}
	}
	t.Fatalf("nobody subscribed to %s", topic)
	return nil
}

func (s *fakeSubscription) end() {
	s.once.Do(func() {
		s.offers.Wait()
		close(s.ch)
	})
}

// newMessage returns a message as a subscriber gives it, and what ends its context.
func (s *fakeSubscription) newMessage(id string) (*message.Message, context.CancelFunc) {
	ctx, cancel := context.WithCancel(s.ctx)
	return message.NewMessageWithContext(ctx, id, []byte(id)), cancel
}

// offer gives a message when somebody takes it, and ends its context when its verdict is
// there. For use in a bubble.
func (s *fakeSubscription) offer(id string) *message.Message {
	msg, cancel := s.newMessage(id)
	s.offers.Add(1)
	go func() {
		defer cancel()
		select {
		case s.ch <- msg:
			s.offers.Done()
		case <-s.ctx.Done():
			s.offers.Done()
			return
		}
		select {
		case <-msg.Acked():
		case <-msg.Nacked():
		case <-s.ctx.Done():
		}
	}()
	return msg
}

// fakePublisher records what it is given.
type fakePublisher struct {
	publish func(topic string, messages ...*message.Message) error // nil: succeeds
	onClose func() error                                           // nil: succeeds

	mu        sync.Mutex
	published []*message.Message
	batches   int
	closed    int
}

func (f *fakePublisher) Publish(topic string, messages ...*message.Message) error {
	f.mu.Lock()
	f.published = append(f.published, messages...)
	f.batches++
	f.mu.Unlock()
	if f.publish != nil {
		return f.publish(topic, messages...)
	}
	return nil
}

func (f *fakePublisher) Close() error {
	f.mu.Lock()
	f.closed++
	f.mu.Unlock()
	if f.onClose != nil {
		return f.onClose()
	}
	return nil
}

// sub is a subscription of the concurrency 1.
func sub(name string, topics ...string) transports.Subscription {
	return transports.Subscription{Name: name, Topics: topics, Concurrency: 1}
}

func subscribe(ctx context.Context, t *testing.T, tr *Transport, s transports.Subscription) <-chan *message.Message {
	t.Helper()
	ch, err := tr.Subscribe(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// receive takes the next message and wants it to have this id.
func receive(t *testing.T, ch <-chan *message.Message, id string) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-ch:
		if !ok {
			t.Fatal("the channel is closed; want a message")
		}
		if msg.UUID != id {
			t.Fatalf("received %q; want %q", msg.UUID, id)
		}
		return msg
	case <-time.After(time.Minute): // virtual, or a failure
		t.Fatalf("%s does not come", id)
		return nil
	}
}

// isOpen reports whether a channel is open and has nothing.
func isOpen(t *testing.T, ch <-chan *message.Message) bool {
	t.Helper()
	select {
	case msg, ok := <-ch:
		if ok {
			t.Fatalf("received %q; want nothing", msg.UUID)
		}
		return false
	default:
		return true
	}
}

func ended(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

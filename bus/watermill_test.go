package bus_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// These tests show what Watermill's router does by itself and the bus, which runs on it,
// must not. Each runs one scenario on both, and asserts that the bare router has the
// fault: where one of these fails at "Watermill", they have mended it.

// source is a Watermill subscriber whose deliveries a test makes, as a transport and
// without one.
type source struct {
	deliveries chan *message.Message
	onClose    func() // called by the router's Close, before the channel is closed; nil for nothing
	closed     atomic.Bool
}

func newSource() *source { return &source{deliveries: make(chan *message.Message, 10)} }

func (s *source) deliver(ctx context.Context) *message.Message {
	msg := message.NewMessageWithContext(ctx, "event-1", []byte(`{"n":1}`))
	msg.Metadata["ce_type"], msg.Metadata["ce_source"] = "order.placed", "shop"
	s.deliveries <- msg
	return msg
}

// Subscribe is that of a plain Watermill subscriber: the message's context is that of the
// subscription.
func (s *source) Subscribe(_ context.Context, _ string) (<-chan *message.Message, error) {
	return s.deliveries, nil
}

func (s *source) Close() error {
	if s.closed.CompareAndSwap(false, true) {
		if s.onClose != nil {
			s.onClose()
		}
		close(s.deliveries)
	}
	return nil
}

// run runs handlers on a bare router, and returns the error of Run.
func run(t *testing.T, add func(*message.Router)) (*message.Router, <-chan error) {
	t.Helper()
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: time.Minute}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	add(router)
	ended := make(chan error, 1)
	go func() { ended <- router.Run(context.Background()) }()
	<-router.Running()
	return router, ended
}

// A handler in flight has its context cancelled though there is time for it.
func TestWatermillTrapRouterCancelsHandlersAtOnce(t *testing.T) {
	t.Parallel()
	// working says after ten seconds whether its context has ended before.
	working := func(cancelled *atomic.Bool) func(context.Context) {
		return func(ctx context.Context) {
			select {
			case <-ctx.Done():
				cancelled.Store(true)
			case <-time.After(10 * time.Second):
			}
		}
	}
	t.Run("Watermill", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			transport := connect(t, newBroker(t, memory.Config{}))
			var cancelled atomic.Bool
			work := working(&cancelled)
			sub, err := transports.AsSubscriber(transport, transports.SubscriberConfig{Group: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			router, ended := run(t, func(r *message.Router) {
				r.AddConsumerHandler("a", "order.placed", sub, func(msg *message.Message) error {
					work(msg.Context())
					return nil
				})
			})
			if err := transport.Publish("order.placed", message.NewMessage("event-1", nil)); err != nil {
				t.Fatal(err)
			}
			settle()
			if err := router.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
			check(t, "the handler was cancelled", cancelled.Load(), true)
		})
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, bus.Config{})
			var cancelled atomic.Bool
			work := working(&cancelled)
			bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error { work(ctx); return nil })
			s.start()
			s.publish(placed{})
			settle()
			if err := s.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			check(t, "the handler was cancelled", cancelled.Load(), false)
			checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"handled"})
		})
	})
}

// A message that is delivered while the router closes is not waited for.
func TestWatermillTrapRouterCloseReturnsNilWithAHandlerStillRunning(t *testing.T) {
	t.Parallel()
	t.Run("Watermill", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var running atomic.Bool
			src := newSource()
			src.onClose = func() { // the transport had one on its way
				time.Sleep(time.Millisecond) // virtual
				src.deliver(context.Background())
			}
			router, ended := run(t, func(r *message.Router) {
				r.AddConsumerHandler("a", "", src, func(*message.Message) error {
					running.Store(true)
					time.Sleep(10 * time.Second) // virtual
					running.Store(false)
					return nil
				})
			})
			settle()
			err := router.Close()
			settle()
			check(t, "Close returned nil with a handler running", err == nil && running.Load(), true)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			pass(time.Minute)
		})
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var running atomic.Int32
			late := &lateTransport{source: newSource()}
			b := newBus(t, late, bus.Config{Source: "shop"})
			bus.Subscribe(b, "a", func(context.Context, placed) error {
				running.Add(1)
				defer running.Add(-1)
				time.Sleep(10 * time.Second) // virtual
				return nil
			})
			if err := b.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			handled := late.deliver(context.Background())
			settle()
			check(t, "handlers running", running.Load(), 1)
			if err := b.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			check(t, "Shutdown returned nil with a handler running", running.Load() > 0, false)
			<-handled.Acked()
			<-late.last.Nacked() // it was not begun any more
		})
	})
}

// lateTransport delivers one message more when its intake has ended, and closes its
// channel when that is settled.
type lateTransport struct {
	transports.Transport
	*source
	last *message.Message
}

func (l *lateTransport) Publish(topic string, messages ...*message.Message) error {
	return l.Transport.Publish(topic, messages...)
}

func (l *lateTransport) Close() error { return nil }

func (l *lateTransport) Subscribe(ctx context.Context, _ transports.Subscription) (<-chan *message.Message, error) {
	context.AfterFunc(ctx, func() {
		time.Sleep(time.Millisecond) // virtual
		l.last = l.deliver(context.Background())
		select {
		case <-l.last.Acked():
		case <-l.last.Nacked():
		}
		close(l.deliveries)
	})
	return l.deliveries, nil
}

// A service whose subscriptions have all ended looks as if it had been stopped.
func TestWatermillTrapRouterReturnsNilWhenAllSubscriptionsDie(t *testing.T) {
	t.Parallel()
	t.Run("Watermill", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			src := newSource()
			_, ended := run(t, func(r *message.Router) {
				r.AddConsumerHandler("a", "", src, func(*message.Message) error { return nil })
			})
			if err := src.Close(); err != nil { // by the broker
				t.Fatal(err)
			}
			check(t, "error of Run", <-ended, nil)
		})
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			transport := connect(t, newBroker(t, memory.Config{}))
			b := newBus(t, transport, bus.Config{Source: "shop"})
			bus.Subscribe(b, "a", ignore[placed])
			ended := make(chan error, 1)
			go func() { ended <- b.Run(context.Background()) }()
			settle()
			if err := transport.Close(); err != nil {
				t.Fatal(err)
			}
			err := <-ended
			if _, lost := errors.AsType[*bus.SubscriptionLostError](err); !lost {
				t.Errorf("error of Run is %v, want a SubscriptionLostError", err)
			}
		})
	})
}

// sharedPublisher is a publisher of several handlers.
type sharedPublisher struct{ closed atomic.Bool }

func (p *sharedPublisher) Publish(string, ...*message.Message) error {
	if p.closed.Load() {
		return errors.New("publisher is closed")
	}
	return nil
}

func (p *sharedPublisher) Close() error { p.closed.Store(true); return nil }

// The other handlers can't publish any more.
func TestWatermillTrapHandlerThatStopsClosesASharedPublisher(t *testing.T) {
	t.Parallel()
	t.Run("Watermill", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			one, other, publisher := newSource(), newSource(), &sharedPublisher{}
			forward := func(msg *message.Message) ([]*message.Message, error) { return []*message.Message{msg.Copy()}, nil }
			router, ended := run(t, func(r *message.Router) {
				r.AddHandler("a", "", one, "out", publisher, forward)
				r.AddHandler("b", "", other, "out", publisher, forward)
			})
			if err := one.Close(); err != nil { // only this one
				t.Fatal(err)
			}
			settle()
			<-other.deliver(context.Background()).Nacked()
			check(t, "publisher is closed", publisher.closed.Load(), true)
			if err := errors.Join(router.Close(), <-ended); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			transport := connect(t, newBroker(t, memory.Config{}))
			b := newBus(t, transport, bus.Config{Source: "shop"})
			var published error
			bus.Subscribe(b, "a", ignore[paid])
			bus.Subscribe(b, "b", func(ctx context.Context, _ placed) error {
				time.Sleep(10 * time.Second) // virtual: its publish comes when the other one is gone
				published = b.Publish(ctx, paid{})
				return published
			})
			if err := b.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := b.Publish(t.Context(), placed{}); err != nil {
				t.Fatal(err)
			}
			settle()
			if err := transport.RemoveSubscription(t.Context(), "shop.a"); err != nil {
				t.Fatal(err)
			}
			err := b.Wait()
			if _, lost := errors.AsType[*bus.SubscriptionLostError](err); !lost {
				t.Errorf("error is %v, want a SubscriptionLostError", err)
			}
			check(t, "error of the publish", published, nil)
			check(t, "transport still publishes", transport.Publish("order.paid", message.NewMessage("x", nil)), nil)
		})
	})
}

// A message's context has the name of the subscription, and none of the bus's own types,
// which would cost two allocations each.
func TestRouterNamesTheSubscriptionOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var names []string
		s := newSetup(t, bus.Config{Middleware: []message.HandlerMiddleware{func(h message.HandlerFunc) message.HandlerFunc {
			return func(msg *message.Message) ([]*message.Message, error) {
				ctx := msg.Context()
				names = []string{
					message.HandlerNameFromCtx(ctx), message.SubscriberNameFromCtx(ctx),
					message.PublisherNameFromCtx(ctx), message.SubscribeTopicFromCtx(ctx),
				}
				return h(msg)
			}
		}}})
		bus.Subscribe(s.Bus, "mail", func(context.Context, placed) error { return nil })
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Publish(t.Context(), placed{N: 1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if want := []string{"shop.mail", "", "", ""}; !slices.Equal(names, want) {
			t.Errorf("names %q; want %q", names, want)
		}
	})
}

package bus_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports/memory"
)

// The transport keeps what it is given; the caller's buffer is not that.
func TestPublishRawLeavesTheCallersBufferToTheCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got notes[string]
		bus.SubscribeRaw(s.Bus, "raw", []string{"#"}, func(_ context.Context, raw bus.Raw) error {
			got.add(string(raw.Data))
			return nil
		}, bus.Concurrency(1))
		s.start()
		if err := s.Pause("raw"); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 1)
		for i := range 3 {
			buffer[0] = byte('0' + i)
			if err := s.PublishRaw(t.Context(), bus.Raw{Metadata: events.Metadata{Type: "a"}, Data: buffer}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Resume("raw"); err != nil {
			t.Fatal(err)
		}
		settle()
		checkAll(t, "data", got.get(), []string{"0", "1", "2"})
	})
}

func TestPauseStartsNoHandlerThatWaitsForASlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var begun atomic.Int32
		release := make(chan struct{})
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error {
			begun.Add(1)
			<-release
			return nil
		}, bus.Concurrency(2))
		s.start()
		for i := range 10 {
			s.publish(placed{N: i})
		}
		settle()
		if err := s.Pause("a"); err != nil {
			t.Fatal(err)
		}
		close(release)
		pass(time.Minute)
		check(t, "begun", begun.Load(), 2)
		if err := s.Resume("a"); err != nil {
			t.Fatal(err)
		}
		settle()
		check(t, "begun after Resume", begun.Load(), 10)
	})
}

func TestPauseHoldsRetriesInPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var calls notes[int]
		bus.Subscribe(s.Bus, "o", func(_ context.Context, e placed) error {
			calls.add(e.N)
			return errors.New("no")
		}, bus.Ordered(), bus.Retry(exact(1, time.Second, time.Second)))
		s.start()
		s.publish(placed{N: 1})
		settle()
		if err := s.Pause("o"); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		check(t, "calls", len(calls.get()), 1)
		check(t, "poisoned", len(s.poisoned("o")), 0)
		if err := s.Resume("o"); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		check(t, "calls after Resume", len(calls.get()), 3)
	})
}

func TestShutdownStartsNoHandlerThatWaitsForASlot(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]bus.SubscribeOption{
		"unordered": {bus.Concurrency(4)},
		"ordered":   {bus.Concurrency(4), bus.Ordered()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, bus.Config{})
				bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
					time.Sleep(4 * time.Second) // virtual
					return ctx.Err()
				}, opts...)
				s.start()
				for i := range 40 {
					s.publish(placed{N: i, Key: fmt.Sprint(i)})
				}
				settle()
				start := time.Now()
				if err := s.Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				check(t, "time taken", time.Since(start), 4*time.Second)
				check(t, "handled", len(s.steps.outcomes("a")), 4)
				check(t, "left in the queue", s.depth("a").Ready, 36)
			})
		})
	}
}

// Watermill's router would stop waiting after its own time-out.
func TestBusWaitsForHandlersWhenTheTransportCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := connect(t, newBroker(t, memory.Config{}))
		b := newBus(t, transport, bus.Config{Source: "shop", ShutdownTimeout: 5 * time.Minute})
		var running atomic.Int32
		bus.Subscribe(b, "a", func(context.Context, placed) error {
			running.Add(1)
			defer running.Add(-1)
			time.Sleep(time.Minute) // virtual
			return nil
		})
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), placed{}); err != nil {
			t.Fatal(err)
		}
		settle()
		if err := transport.Close(); err != nil {
			t.Fatal(err)
		}
		err := b.Wait()
		if _, ok := errors.AsType[*bus.SubscriptionLostError](err); !ok {
			t.Errorf("error is %v, want a SubscriptionLostError", err)
		}
		check(t, "handlers that still run", running.Load(), 0)
	})
}

func TestRemoveSubscriptionEndsARunningBusThatIsPaused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, connect(t, newBroker(t, memory.Config{})), bus.Config{Source: "shop"})
		bus.Subscribe(b, "a", ignore[placed])
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Pause("a"); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), placed{}); err != nil {
			t.Fatal(err)
		}
		settle()
		if err := b.RemoveSubscription(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if _, ok := errors.AsType[*bus.SubscriptionLostError](b.Wait()); !ok {
			t.Error("the bus did not end for the lost subscription")
		}
	})
}

func TestEphemeralSubscriptionCanBeStartedAgainAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", ignore[placed], bus.Ephemeral())
		b := newBus(t, &failingSubscribe{Transport: s.transport, failAt: 2}, bus.Config{Source: "shop"})
		bus.Subscribe(b, "a", ignore[placed], bus.Ephemeral())
		bus.Subscribe(b, "b", ignore[placed])
		if err := b.Start(t.Context()); err == nil {
			t.Fatal("the first Start did not fail")
		}
		if err := b.Start(t.Context()); err != nil {
			t.Errorf("second Start: %v", err)
		}
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// The router has nowhere to publish them, and would nack the event for ever.
func TestMiddlewareThatReturnsMessagesIsAFaultOfTheProgram(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", ignore[placed], bus.Use(func(h message.HandlerFunc) message.HandlerFunc {
			return func(msg *message.Message) ([]*message.Message, error) {
				_, err := h(msg)
				return []*message.Message{msg.Copy()}, err
			}
		}))
		s.start()
		s.publish(placed{})
		pass(time.Minute)
		checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"poisoned"})
	})
}

func TestHandlerThatEndsItsGoroutineIsNotCalledInALoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var calls atomic.Int32
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error {
			calls.Add(1)
			runtime.Goexit()
			return nil
		})
		s.start()
		s.publish(placed{})
		pass(9 * time.Second)
		if n := calls.Load(); n < 2 || n > 10 {
			t.Errorf("%d calls in 9 s", n)
		}
	})
}

func TestPanicOfTheMiddlewareItselfKeepsTheOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := connect(t, newBroker(t, memory.Config{}))
		var first atomic.Bool
		b := newBus(t, transport, bus.Config{Source: "shop", OnDelivery: func(bus.Delivery) {
			if first.CompareAndSwap(false, true) {
				panic("counter is broken")
			}
		}})
		var got notes[int]
		bus.Subscribe(b, "o", got.numbers(number), bus.Ordered())
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.PublishAll(t.Context(), placed{N: 1}, placed{N: 2}, placed{N: 3}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		checkAll(t, "calls", got.get(), []int{1, 1, 2, 3})
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

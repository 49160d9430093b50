package bus_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// tracing is middleware that notes its name.
func tracing(calls *notes[string], name string) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			calls.add(name)
			return h(msg)
		}
	}
}

func TestPublishBeforeStartIsRefusedWithSubscriptions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		if err := s.Publish(t.Context(), placed{}); err != nil {
			t.Errorf("a bus without subscriptions publishes without Start: %v", err)
		}
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error { return nil })
		for name, err := range map[string]error{
			"Publish":    s.Publish(t.Context(), placed{}),
			"PublishAll": s.PublishAll(t.Context(), placed{}),
			"PublishRaw": s.PublishRaw(t.Context(), bus.Raw{}),
		} {
			check(t, name+" is ErrNotRunning", errors.Is(err, bus.ErrNotRunning), true)
		}
	})
}

func TestPublishAfterShutdownIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		s.start()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, "Publish is ErrClosed", errors.Is(s.Publish(t.Context(), placed{}), bus.ErrClosed), true)
		check(t, "Start is ErrClosed", errors.Is(s.Start(t.Context()), bus.ErrClosed), true)
	})
}

func TestPublishAfterTheTransportClosedIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		if err := s.transport.Close(); err != nil {
			t.Fatal(err)
		}
		check(t, "Publish is ErrClosed", errors.Is(s.Publish(t.Context(), placed{}), transports.ErrClosed), true)
	})
}

func TestStartTwiceIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		s.start()
		check(t, "second Start is ErrStarted", errors.Is(s.Start(t.Context()), bus.ErrStarted), true)
	})
}

func TestSubscribingAfterStartPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		sub := bus.Subscribe(s.Bus, "a", func(context.Context, placed) error { return nil })
		s.start()
		for name, late := range map[string]func(){
			"Subscribe": func() { bus.Subscribe(s.Bus, "b", func(context.Context, placed) error { return nil }) },
			"On":        func() { bus.On(sub, func(context.Context, paid) error { return nil }) },
		} {
			func() {
				defer func() { check(t, name+" panics", recover() != nil, true) }()
				late()
			}()
		}
	})
}

func TestWhatIsPublishedWhileNobodyRunsWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{})
		run := func(got *notes[int]) *setup {
			s := newSetupOn(t, broker, bus.Config{})
			bus.Subscribe(s.Bus, "a", got.numbers(number), bus.Concurrency(1))
			s.start()
			return s
		}
		var first, second notes[int]
		s := run(&first)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		publisher := newSetupOn(t, broker, bus.Config{})
		publisher.publish(placed{N: 1}, placed{N: 2})
		run(&second)
		settle()
		check(t, "handled by the first", len(first.get()), 0)
		checkAll(t, "handled by the second", second.get(), []int{1, 2})
	})
}

func TestShutdownLetsHandlersFinishAndPublish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var canceled notes[bool]
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
			time.Sleep(10 * time.Second) // virtual
			canceled.add(ctx.Err() != nil)
			return s.Publish(ctx, paid{})
		}, bus.Concurrency(1))
		s.start()
		s.publish(placed{N: 1}, placed{N: 2})
		settle()
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, "time taken", time.Since(start), 10*time.Second)
		checkAll(t, "contexts that were cancelled", canceled.get(), []bool{false})
		check(t, "left in the queue", s.depth("a").Ready, 1) // the second was not begun
		checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"handled"})
		if err := s.Wait(); err != nil {
			t.Errorf("Wait: %v", err)
		}
	})
}

func TestHandlersThatOverstayAreInterruptedAndNothingIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{})
		s := newSetupOn(t, broker, bus.Config{ShutdownTimeout: time.Minute})
		var causes notes[error]
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
			<-ctx.Done()
			causes.add(context.Cause(ctx))
			return ctx.Err()
		}, bus.Retry(bus.NoRetry())) // the first failure would poison
		s.start()
		s.publish(placed{N: 1}, placed{N: 2}, placed{N: 3})
		settle()
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		check(t, "time taken", time.Since(start), time.Minute)
		for _, cause := range causes.get() {
			check(t, "cause", cause, bus.ErrShutdown)
		}
		check(t, "interrupted", len(causes.get()), 3)
		check(t, "poisoned", len(s.poisoned("a")), 0)
		check(t, "back in the queue", s.depth("a").Ready, 3)

		next := newSetupOn(t, broker, bus.Config{})
		var order, attempts notes[int]
		bus.Subscribe(next.Bus, "a", func(ctx context.Context, e placed) error {
			order.add(e.N)
			md, _ := events.MetadataFrom(ctx)
			attempts.add(md.Attempt)
			return nil
		}, bus.Concurrency(1))
		next.start()
		settle()
		checkAll(t, "handled by the next", order.get(), []int{1, 2, 3})
		checkAll(t, "attempts", attempts.get(), []int{1, 1, 1})
	})
}

func TestShutdownGivesUpOnAHandlerThatIgnoresItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := connect(t, newBroker(t, memory.Config{}))
		b := newBus(t, transport, bus.Config{Source: "shop", ShutdownTimeout: time.Second})
		release := make(chan struct{})
		bus.Subscribe(b, "stubborn", func(context.Context, placed) error { <-release; return nil })
		bus.Subscribe(b, "good", func(context.Context, placed) error { return nil })
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), placed{}); err != nil {
			t.Fatal(err)
		}
		settle()
		err := b.Shutdown(t.Context())
		var late *bus.ShutdownTimeoutError
		if !errors.As(err, &late) {
			t.Fatalf("error is %v, want a ShutdownTimeoutError", err)
		}
		checkAll(t, "subscriptions", late.Subscriptions, []string{"shop.stubborn"})
		check(t, "Wait says the same", b.Wait().Error(), err.Error())
		close(release)
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestShutdownCanBeCalledAgainAfterItsContextEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error {
			time.Sleep(10 * time.Second) // virtual
			return nil
		})
		s.start()
		s.publish(placed{})
		settle()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v, want that of the context", err)
		}
		var all sync.WaitGroup
		for range 3 { // also concurrently
			all.Go(func() {
				if err := s.Shutdown(t.Context()); err != nil {
					t.Errorf("second Shutdown: %v", err)
				}
			})
		}
		all.Wait()
		checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"handled"})
	})
}

func TestShutdownBeforeStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error { return nil })
		for range 2 {
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := s.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestRunDrainsWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
			time.Sleep(time.Second) // virtual
			return ctx.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		settle()
		s.publish(placed{})
		settle()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"handled"})
	})
}

func TestRunReturnsTheErrorOfStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		s.Subscription("nothing")
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "receives nothing") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestBusEndsWithAnErrorWhenASubscriptionIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := connect(t, newBroker(t, memory.Config{}))
		b := newBus(t, transport, bus.Config{Source: "shop"})
		bus.Subscribe(b, "a", func(context.Context, placed) error { return nil })
		bus.Subscribe(b, "b", func(context.Context, placed) error { return nil })
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := transport.RemoveSubscription(t.Context(), "shop.b"); err != nil {
			t.Fatal(err)
		}
		var lost *bus.SubscriptionLostError
		if err := b.Wait(); !errors.As(err, &lost) {
			t.Fatalf("Wait returned %v, want a SubscriptionLostError", err)
		}
		check(t, "lost", lost.Subscription, "shop.b")
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestEphemeralSubscriptionSeesEveryEventInEveryReplicaAndLeavesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{})
		var got [2]notes[int]
		var replicas [2]*setup
		for i := range replicas {
			replicas[i] = newSetupOn(t, broker, bus.Config{})
			bus.Subscribe(replicas[i].Bus, "cache", got[i].numbers(number), bus.Ephemeral(), bus.Concurrency(1))
			replicas[i].start()
		}
		replicas[0].publish(placed{N: 1}, placed{N: 2})
		settle()
		for i := range replicas {
			checkAll(t, "handled", got[i].get(), []int{1, 2})
			name := strings.TrimPrefix(replicas[i].steps.all[0].Metadata.Subscription, "shop.")
			check(t, "depth", replicas[i].depth(name), transports.Depth{})
			if err := replicas[i].Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, err := replicas[i].transport.Depth(t.Context(), "shop."+name)
			check(t, "is gone", errors.Is(err, transports.ErrNoSubscription), true)
		}
	})
}

func TestStartThatFailsLeavesNothingBehindAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{})
		transport := connect(t, broker)
		failing := &failingSubscribe{Transport: transport, failAt: 2}
		b := newBus(t, failing, bus.Config{Source: "shop"})
		var got notes[int]
		bus.Subscribe(b, "a", got.numbers(number), bus.Ordered())
		bus.Subscribe(b, "b", got.numbers(number))
		if err := b.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "bus: subscribe shop.b: broker says no") {
			t.Fatalf("error is %v", err)
		}
		check(t, "Publish is ErrNotRunning", errors.Is(b.Publish(t.Context(), placed{}), bus.ErrNotRunning), true)
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), placed{N: 1}); err != nil {
			t.Fatal(err)
		}
		settle()
		checkAll(t, "handled", got.get(), []int{1, 1})
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestStartEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error { return nil })
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("no time"))
		if err := s.Start(ctx); err == nil {
			t.Error("Start succeeded with a context that had ended")
		}
		s.start()
	})
}

// failingSubscribe fails the nth call of Subscribe.
type failingSubscribe struct {
	transports.Transport
	calls, failAt int
}

func (f *failingSubscribe) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	if f.calls++; f.calls == f.failAt {
		return nil, errors.New("broker says no")
	}
	return f.Transport.Subscribe(ctx, s)
}

package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"github.com/failsafe-go/failsafe-go/timeout"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
)

// outage is a handler of something that is down for so long, from when it is made.
type outage struct {
	until time.Time
	calls notes[int]
	times notes[time.Time]
}

func newOutage(lasts time.Duration) *outage { return &outage{until: time.Now().Add(lasts)} }

func (o *outage) handle(_ context.Context, e placed) error {
	o.times.add(time.Now())
	if time.Now().Before(o.until) {
		return errors.New("down")
	}
	o.calls.add(e.N)
	return nil
}

func breakerFor(delay time.Duration) circuitbreaker.CircuitBreaker[any] {
	return circuitbreaker.NewBuilder[any]().WithFailureThreshold(3).WithSuccessThreshold(1).WithDelay(delay).Build()
}

// Each event would have failed for good in a few minutes.
func TestOpenCircuitBurnsNoEvents(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]bus.SubscribeOption{
		"unordered":       nil,
		"ordered":         {bus.Ordered()},
		"one at a time":   {bus.Concurrency(1)},
		"pause on poison": {bus.PauseOnPoison()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				s := newSetup(t, bus.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				down := newOutage(time.Hour)
				bus.Subscribe(s.Bus, "a", down.handle, append([]bus.SubscribeOption{
					bus.CircuitBreaker(breakerFor(time.Minute)), bus.Retry(exact(3, time.Second, time.Minute)),
				}, opts...)...)
				s.start()
				for i := range 50 {
					s.publish(placed{N: i, Key: fmt.Sprint(i % 10)})
				}
				pass(50 * time.Minute)
				reasons, err := s.PauseReasons("a")
				if err != nil {
					t.Fatal(err)
				}
				checkAll(t, "reasons", reasons, []string{"circuit is open"})
				if n := len(down.times.get()); n > 80 {
					t.Errorf("%d calls in 50 minutes of an outage", n)
				}
				check(t, "poisoned", len(s.poisoned("a")), 0)
				pass(2 * time.Hour)
				check(t, "handled", len(down.calls.get()), 50)
				check(t, "poisoned", len(s.poisoned("a")), 0)
				d := s.depth("a")
				check(t, "left", d.Ready+d.Delayed+d.InFlight, 0)
				for _, want := range []string{"the subscription is paused: its circuit is open", "the subscription goes on: its circuit is closed"} {
					check(t, "log has "+want, strings.Contains(log.String(), want), true)
				}
			})
		})
	}
}

// A bad event must not keep the circuit open, and not be spared for ever.
func TestEventThatFailsByItsOwnFaultIsPoisonedInSpiteOfTheCircuit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var good atomic.Int32
		bus.Subscribe(s.Bus, "a", func(_ context.Context, e placed) error {
			if e.N == 0 {
				return errors.New("bad")
			}
			good.Add(1)
			return nil
		}, bus.CircuitBreaker(breakerFor(time.Minute)), bus.Retry(exact(3, time.Second)), bus.Concurrency(1))
		s.start()
		for i := range 10 {
			s.publish(placed{N: i})
		}
		pass(time.Hour)
		check(t, "good ones", good.Load(), 9)
		check(t, "poisoned", len(s.poisoned("a")), 1)
	})
}

func TestOpenCircuitLetsTheBusShutDownAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		down := newOutage(time.Hour)
		bus.Subscribe(s.Bus, "a", down.handle, bus.CircuitBreaker(breakerFor(time.Hour)), bus.Retry(exact(1, time.Minute)))
		s.start()
		for i := range 60 {
			s.publish(placed{N: i})
		}
		pass(5 * time.Minute)
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, "time taken", time.Since(start), 0)
		d := s.depth("a")
		check(t, "left in the queue", d.Ready+d.Delayed, 60)
	})
}

func TestObservedCircuitPausesTheSubscriptionForItsClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		cb := breakerFor(time.Minute)
		down := newOutage(time.Hour)
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, e placed) error {
			if !cb.TryAcquirePermit() { // as a client with the breaker around it does
				return fmt.Errorf("call: %w", circuitbreaker.ErrOpen)
			}
			err := down.handle(ctx, e)
			cb.RecordError(err)
			return err
		}, bus.ObserveCircuitBreaker(cb), bus.Retry(exact(2, time.Second)))
		s.start()
		for i := range 30 {
			s.publish(placed{N: i})
		}
		pass(3 * time.Hour)
		check(t, "handled", len(down.calls.get()), 30)
		check(t, "poisoned", len(s.poisoned("a")), 0)
	})
}

func TestRateLimitSpreadsAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		ok := newOutage(0)
		bus.Subscribe(s.Bus, "a", ok.handle, bus.RateLimit(ratelimiter.NewSmoothWithMaxRate[any](time.Minute)))
		s.start()
		for i := range 60 {
			s.publish(placed{N: i})
		}
		pass(30*time.Minute + time.Second)
		check(t, "handled in half an hour", len(ok.calls.get()), 31)
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, "time that the shutdown took", time.Since(start), 0)
		check(t, "left in the queue", s.depth("a").Ready, 29)
	})
}

func TestPoliciesGuardEachAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		one := bulkhead.New[any](1)
		one.TryAcquirePermit()
		calls := 0
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
			if calls++; calls == 1 {
				<-ctx.Done()
			}
			return ctx.Err()
		}, bus.Policies(one, timeout.New[any](time.Second)), bus.Retry(exact(1, time.Minute)))
		s.start()
		s.publish(placed{})
		pass(time.Hour)
		check(t, "calls while there is no room", calls, 0)
		one.ReleasePermit()
		pass(time.Hour)
		check(t, "calls", calls, 2)
		outcomes := s.steps.outcomes("a")
		check(t, "first outcome", outcomes[0], "deferred")
		checkAll(t, "last outcomes", outcomes[len(outcomes)-2:], []string{"redelivered", "handled"})
		check(t, "attempts", s.steps.all[len(outcomes)-1].Metadata.Attempt, 2)
	})
}

func TestFallbackHandlesAnEventWhoseRetriesAreUsedUp(t *testing.T) {
	t.Parallel()
	typed := func(got *notes[string]) bus.SubscribeOption {
		return bus.Fallback(func(ctx context.Context, e placed, err error) error {
			md, _ := events.MetadataFrom(ctx)
			got.add(fmt.Sprint("placed ", e.N, " ", md.Type, ": ", err))
			return nil
		})
	}
	raw := func(got *notes[string]) bus.SubscribeOption {
		return bus.Fallback(func(_ context.Context, e bus.Raw, err error) error {
			got.add(fmt.Sprint(e.Metadata.Type, " ", string(e.Data), ": ", err))
			return nil
		})
	}
	for name, c := range map[string]struct {
		fallback func(*notes[string]) bus.SubscribeOption
		err      error
		calls    int
		want     []string
		outcomes []string
	}{
		"typed":     {typed, errors.New("no"), 4, []string{"placed 7 order.placed: no"}, []string{"retried", "redelivered", "retried", "handled"}},
		"raw":       {raw, errors.New("no"), 4, []string{`order.placed {"n":7}: no`}, []string{"retried", "redelivered", "retried", "handled"}},
		"Permanent": {typed, bus.Permanent(errors.New("no")), 1, nil, []string{"poisoned"}},
		"Discard":   {typed, bus.Discard(errors.New("no")), 1, nil, []string{"discarded"}},
		"fails too": {func(*notes[string]) bus.SubscribeOption {
			return bus.Fallback(func(context.Context, placed, error) error { return errors.New("nor this") })
		}, errors.New("no"), 4, nil, []string{"retried", "redelivered", "retried", "poisoned"}},
		"panics": {func(*notes[string]) bus.SubscribeOption {
			return bus.Fallback(func(context.Context, placed, error) error { panic("nor this") })
		}, errors.New("no"), 4, nil, []string{"retried", "redelivered", "retried", "poisoned"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, bus.Config{})
				var got notes[string]
				calls := 0
				bus.Subscribe(s.Bus, "a", func(context.Context, placed) error { calls++; return c.err },
					bus.Retry(exact(2, time.Minute)), c.fallback(&got))
				s.start()
				s.publish(placed{N: 7})
				pass(time.Hour)
				check(t, "calls of the handler", calls, c.calls)
				checkAll(t, "calls of the fallback", got.get(), c.want)
				checkAll(t, "outcomes", s.steps.outcomes("a"), c.outcomes)
				for _, p := range s.poisoned("a") {
					if strings.Contains(name, "too") {
						check(t, "reason", p.Reason, "no\nfallback: nor this")
					}
				}
			})
		})
	}
}

func TestFallbackHasTheTimeoutForItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		start := time.Now()
		var took time.Duration
		waits := func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error { return waits(ctx) },
			bus.Timeout(time.Second), bus.Retry(bus.NoRetry()),
			bus.Fallback(func(ctx context.Context, _ placed, _ error) error {
				err := waits(ctx)
				took = time.Since(start)
				return err
			}))
		s.start()
		s.publish(placed{})
		pass(time.Minute)
		check(t, "time taken", took, 2*time.Second)
		check(t, "poisoned", len(s.poisoned("a")), 1)
	})
}

func TestTypeWithoutAFallbackIsPoisoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		sub := s.Subscription("a", bus.Retry(bus.NoRetry()), bus.Fallback(func(context.Context, placed, error) error { return nil }))
		bus.On(sub, func(context.Context, placed) error { return errors.New("no") })
		bus.On(sub, func(context.Context, paid) error { return errors.New("no") })
		s.start()
		s.publish(placed{}, paid{})
		pass(time.Minute)
		p := s.poisoned("a")
		check(t, "poisoned", len(p), 1)
		check(t, "type", p[0].Message.Metadata["ce_type"], "order.paid")
		check(t, "reason", p[0].Reason, "no")
	})
}

// The order of design: each waits or decides outside of what it must not take with it.
func TestMiddlewareIsComposedInItsOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		cb := breakerFor(time.Minute)
		limiter := ratelimiter.NewSmoothWithMaxRate[any](time.Hour)
		var seen notes[string]
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error { return errors.New("no") },
			bus.CircuitBreaker(cb), bus.RateLimit(limiter), bus.Timeout(time.Second), bus.Retry(exact(1)),
			bus.Use(func(h message.HandlerFunc) message.HandlerFunc {
				return func(msg *message.Message) ([]*message.Message, error) {
					_, limited := msg.Context().Deadline()
					seen.add(fmt.Sprintf("timeout is outside: %t", limited))
					return h(msg)
				}
			}))
		s.start()
		s.publish(placed{N: 1}, placed{N: 2})
		pass(time.Minute)
		checkAll(t, "seen", seen.get(), []string{"timeout is outside: true"})
		// The second one waits for the rate, which takes no time of its time-out, and is no
		// failure of the dependency.
		check(t, "failures", cb.Metrics().Failures(), 1)
		checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"poisoned"})
	})
}

package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports/memory"
)

func label(e placed) string { return fmt.Sprint(e.Key, e.N) }

// failing makes a handler that notes each call and fails for one event until told.
func failing(calls *notes[string], n int, until func() bool) func(context.Context, placed) error {
	return func(_ context.Context, e placed) error {
		calls.add(label(e))
		if e.Key == "a" && e.N == n && !until() {
			return errors.New("not yet")
		}
		return nil
	}
}

func TestOrderedLaneWaitsInPlaceWhileOtherKeysGoOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var calls notes[string]
		start := time.Now()
		bus.Subscribe(s.Bus, "o", failing(&calls, 1, func() bool { return time.Since(start) > 30*time.Second }),
			bus.Ordered(), bus.Retry(exact(1, 10*time.Second, 30*time.Second)))
		s.start()
		s.publish(placed{1, "a"}, placed{2, "a"}, placed{1, "b"}, placed{3, "a"}, placed{2, "b"})
		settle()
		check(t, "calls at once", len(calls.get()), 3) // a1 b1 b2
		check(t, "unsettled", s.depth("o").InFlight, 3)
		check(t, "delayed at the broker", s.depth("o").Delayed, 0)
		pass(time.Minute)
		var a []string
		for _, call := range calls.get() {
			if call[0] == 'a' {
				a = append(a, call)
			}
		}
		checkAll(t, "calls of lane a", a, []string{"a1", "a1", "a1", "a2", "a3"})
	})
}

func TestPoisonedEventFreesItsLane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var calls notes[string]
		bus.Subscribe(s.Bus, "o", failing(&calls, 1, func() bool { return false }), bus.Ordered(), bus.Retry(exact(2, time.Second)))
		s.start()
		s.publish(placed{1, "a"}, placed{2, "a"})
		pass(time.Minute)
		checkAll(t, "calls", calls.get(), []string{"a1", "a1", "a1", "a1", "a2"})
		check(t, "poisoned", len(s.poisoned("o")), 1)
	})
}

// RabbitMQ takes back what is not acknowledged in half an hour.
func TestOrderedLaneDoesNotWaitLongerThanBrokersAllow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var calls notes[string]
		bus.Subscribe(s.Bus, "o", failing(&calls, 1, func() bool { return false }), bus.Ordered(),
			bus.Retry(exact(1, 10*time.Minute, 10*time.Minute)))
		s.start()
		s.publish(placed{1, "a"}, placed{2, "a"})
		pass(10*time.Minute + time.Second)
		checkAll(t, "calls", calls.get(), []string{"a1", "a1", "a2"})
		check(t, "poisoned", len(s.poisoned("o")), 1)
	})
}

func TestOrderedEventsOfOneKeyNeverOverlap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var running notes[string]
		var order [3]notes[int]
		bus.Subscribe(s.Bus, "o", func(_ context.Context, e placed) error {
			running.add("+" + e.Key)
			time.Sleep(time.Duration(1+e.N%7) * time.Millisecond) // virtual
			running.add("-" + e.Key)
			order[e.Key[0]-'a'].add(e.N)
			return nil
		}, bus.Ordered(), bus.Concurrency(4))
		s.start()
		var all []any
		var want []int
		for i := range 50 {
			want = append(want, i)
			for _, key := range []string{"a", "b", "c"} {
				all = append(all, placed{i, key})
			}
		}
		s.publish(all...)
		pass(time.Hour)
		for i := range order {
			checkAll(t, "order of a key", order[i].get(), want)
		}
		open := map[byte]int{}
		together := 0
		for _, step := range running.get() {
			if step[0] == '+' {
				open[step[1]]++
			} else {
				open[step[1]]--
			}
			if open[step[1]] > 1 {
				t.Fatalf("two events of key %c at a time", step[1])
			}
			together = max(together, open['a']+open['b']+open['c'])
		}
		check(t, "keys handled at a time", together, 3)
	})
}

func TestOrderedEventsGoBackInOrderAtShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{})
		s := newSetupOn(t, broker, bus.Config{ShutdownTimeout: time.Second})
		var first, second notes[string]
		bus.Subscribe(s.Bus, "o", func(ctx context.Context, e placed) error {
			first.add(label(e))
			<-ctx.Done()
			return ctx.Err()
		}, bus.Ordered())
		s.start()
		s.publish(placed{1, "a"}, placed{2, "a"}, placed{3, "a"})
		settle()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := newSetupOn(t, broker, bus.Config{})
		bus.Subscribe(next.Bus, "o", second.numbers(label), bus.Ordered())
		next.start()
		settle()
		checkAll(t, "begun by the first", first.get(), []string{"a1"})
		checkAll(t, "handled by the second", second.get(), []string{"a1", "a2", "a3"})
	})
}

func TestWaitInPlaceEndsAtShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var calls notes[string]
		bus.Subscribe(s.Bus, "o", failing(&calls, 1, func() bool { return false }), bus.Ordered(), bus.Retry(exact(1, 10*time.Minute)))
		s.start()
		s.publish(placed{1, "a"}, placed{2, "a"})
		settle()
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, "time taken", time.Since(start), 0)
		check(t, "back in the queue", s.depth("o").Ready, 2)
		checkAll(t, "calls", calls.get(), []string{"a1"})
	})
}

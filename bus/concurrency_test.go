package bus_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gotidings/tidings/bus"
)

func TestConcurrencyIsNeverExceeded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var steps notes[int]
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error {
			steps.add(1)
			time.Sleep(time.Second) // virtual
			steps.add(-1)
			return nil
		}, bus.Concurrency(3))
		s.start()
		for i := range 10 {
			s.publish(placed{N: i})
		}
		pass(time.Hour)
		now, most := 0, 0
		for _, step := range steps.get() {
			now += step
			most = max(most, now)
		}
		check(t, "most at a time", most, 3)
		check(t, "handled", len(s.steps.outcomes("a")), 10)
	})
}

// A back-off holds no slot: failing events would hold up those that succeed.
func TestEventsInBackOffLeaveTheirSlotsToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var good notes[int]
		bus.Subscribe(s.Bus, "a", func(_ context.Context, e placed) error {
			if e.N < 2 {
				return errors.New("no")
			}
			good.add(e.N)
			return nil
		}, bus.Concurrency(2), bus.Retry(bus.RetryPolicy{Attempts: 1000, MinDelay: time.Hour, MaxDelay: time.Hour, Redeliveries: []time.Duration{}}),
			bus.WithoutDedup())
		s.start()
		for i := range 5 {
			s.publish(placed{N: i})
		}
		settle()
		check(t, "handled while two wait", len(good.get()), 3)
		check(t, "unsettled", s.depth("a").InFlight, 2)
	})
}

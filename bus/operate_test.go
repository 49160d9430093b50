package bus_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

func TestPausedSubscriptionHandlesNothingAndLosesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got, other notes[int]
		bus.Subscribe(s.Bus, "a", got.numbers(number), bus.Concurrency(2))
		bus.Subscribe(s.Bus, "b", other.numbers(number))
		s.start()
		if err := s.Pause("a"); err != nil {
			t.Fatal(err)
		}
		if err := s.Pause("a"); err != nil { // twice is once
			t.Fatal(err)
		}
		for i := range 10 {
			s.publish(placed{N: i})
		}
		pass(time.Hour)
		check(t, "handled while paused", len(got.get()), 0)
		check(t, "handled by the other one", len(other.get()), 10)
		check(t, "held", s.depth("a").InFlight, 4)
		reasons, err := s.PauseReasons("a")
		if err != nil {
			t.Fatal(err)
		}
		checkAll(t, "reasons", reasons, []string{"paused by the operator"})
		if err := s.Resume("a"); err != nil {
			t.Fatal(err)
		}
		settle()
		check(t, "handled afterwards", len(got.get()), 10)
		check(t, "outcomes", len(s.steps.outcomes("a")), 10)
	})
}

func TestPausedSubscriptionShutsDownAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error { return nil })
		s.start()
		if err := s.Pause("a"); err != nil {
			t.Fatal(err)
		}
		s.publish(placed{}, placed{})
		settle()
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, "time taken", time.Since(start), 0)
		check(t, "back in the queue", s.depth("a").Ready, 2)
	})
}

func TestPauseOnPoisonStandsStillUntilResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var mended atomic.Bool
		var calls notes[string]
		bus.Subscribe(s.Bus, "o", failing(&calls, 2, mended.Load), bus.Ordered(), bus.PauseOnPoison(), bus.Retry(exact(1, time.Second)))
		s.start()
		s.publish(placed{1, "a"}, placed{2, "a"}, placed{3, "a"})
		pass(time.Hour)
		checkAll(t, "calls", calls.get(), []string{"a1", "a2", "a2"})
		if err := s.Resume("o"); err != nil { // too early: it fails afresh, with all its retries
			t.Fatal(err)
		}
		pass(time.Hour)
		checkAll(t, "calls", calls.get(), []string{"a1", "a2", "a2", "a2", "a2"})
		check(t, "poisoned", len(s.poisoned("o")), 0)
		reasons, _ := s.PauseReasons("o")
		check(t, "reasons", len(reasons), 1)
		mended.Store(true)
		if err := s.Resume("o"); err != nil {
			t.Fatal(err)
		}
		pass(time.Second) // it may just be coming again
		checkAll(t, "calls", calls.get(), []string{"a1", "a2", "a2", "a2", "a2", "a2", "a3"})
	})
}

func TestOperationsOnAnUnknownSubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		_, reasonsErr := s.PauseReasons("x")
		_, redriveErr := s.Redrive(t.Context(), "x", bus.Selection{})
		_, discardErr := s.DiscardPoisoned(t.Context(), "x", bus.Selection{})
		var listErr error
		for _, err := range s.Poisoned(t.Context(), "x") {
			listErr = err
		}
		for name, err := range map[string]error{
			"Pause": s.Pause("x"), "Resume": s.Resume("x"), "PauseReasons": reasonsErr, "Redrive": redriveErr,
			"DiscardPoisoned": discardErr, "Poisoned": listErr, "RemoveSubscription": s.RemoveSubscription(t.Context(), "x"),
		} {
			check(t, name+" is ErrUnknownSubscription", errors.Is(err, bus.ErrUnknownSubscription), true)
		}
	})
}

// poisonedSetup has five poisoned events, numbered from 0, in subscription "a".
func poisonedSetup(t *testing.T) (s *setup, handled *notes[int], mend func()) {
	t.Helper()
	s = newSetup(t, bus.Config{})
	handled = &notes[int]{}
	var mended atomic.Bool
	bus.Subscribe(s.Bus, "a", func(_ context.Context, e placed) error {
		if !mended.Load() {
			return errors.New("broken")
		}
		handled.add(e.N)
		return nil
	}, bus.Retry(exact(2, time.Second)), bus.Concurrency(1))
	bus.Subscribe(s.Bus, "b", func(context.Context, placed) error { return nil })
	s.start()
	for i := range 5 {
		s.publish(placed{N: i})
		pass(time.Minute)
	}
	check(t, "poisoned", len(s.poisoned("a")), 5)
	return s, handled, func() { mended.Store(true) }
}

func TestRedrivePutsPoisonedEventsBackToTheirSubscriptionOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, handled, mend := poisonedSetup(t)
		mend()
		before := len(s.steps.outcomes("b"))
		n, err := s.Redrive(t.Context(), "a", bus.Selection{})
		if err != nil {
			t.Fatal(err)
		}
		settle()
		check(t, "moved", n, 5)
		checkAll(t, "handled", handled.get(), []int{0, 1, 2, 3, 4})
		check(t, "deliveries of the other subscription", len(s.steps.outcomes("b"))-before, 0)
		check(t, "poisoned", len(s.poisoned("a")), 0)
	})
}

func TestRedrivenEventStartsAfreshAndCanBePoisonedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := poisonedSetup(t)
		if _, err := s.Redrive(t.Context(), "a", bus.Selection{Limit: 1}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		poisoned := s.poisoned("a")
		check(t, "poisoned", len(poisoned), 5)
		check(t, "attempts", poisoned[4].Attempts, 4)
		check(t, "payload", string(poisoned[4].Message.Payload), `{"n":0}`)
	})
}

func TestRedriveSelects(t *testing.T) {
	t.Parallel()
	odd := func(p transports.Poisoned) bool { return p.Message.Payload[5]%2 == 1 }
	for name, c := range map[string]struct {
		sel   bus.Selection
		moved int
		left  int
		took  time.Duration
	}{
		"all":      {bus.Selection{}, 5, 0, 0},
		"filtered": {bus.Selection{Filter: odd}, 2, 3, 0},
		"limited":  {bus.Selection{Limit: 3}, 3, 2, 0},
		"dry run":  {bus.Selection{Filter: odd, DryRun: true}, 2, 5, 0},
		"slowly":   {bus.Selection{Every: time.Minute}, 5, 0, 4 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, _, mend := poisonedSetup(t)
				mend()
				start := time.Now()
				n, err := s.Redrive(t.Context(), "a", c.sel)
				if err != nil {
					t.Fatal(err)
				}
				check(t, "moved", n, c.moved)
				check(t, "time taken", time.Since(start), c.took)
				check(t, "left", len(s.poisoned("a")), c.left)
			})
		})
	}
}

func TestRedriveStopsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _, mend := poisonedSetup(t)
		mend()
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		n, err := s.Redrive(ctx, "a", bus.Selection{Every: time.Minute})
		check(t, "moved", n, 2)
		check(t, "error is that of the context", errors.Is(err, context.DeadlineExceeded), true)
		check(t, "left", len(s.poisoned("a")), 3)
	})
}

func TestDiscardPoisonedDeletes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, handled, mend := poisonedSetup(t)
		mend()
		n, err := s.DiscardPoisoned(t.Context(), "a", bus.Selection{Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		settle()
		check(t, "deleted", n, 2)
		check(t, "left", len(s.poisoned("a")), 3)
		check(t, "handled", len(handled.get()), 0)
	})
}

// Events that a broker has given up have no id if their publisher gave them none.
func TestFilterChoosesAmongEventsWithoutID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := poisonedSetup(t)
		if _, err := s.DiscardPoisoned(t.Context(), "a", bus.Selection{}); err != nil {
			t.Fatal(err)
		}
		for _, payload := range []string{"1", "2", "3", "4", "5"} {
			if err := s.transport.Poison(t.Context(), "shop.a", message.NewMessage("", []byte(payload))); err != nil {
				t.Fatal(err)
			}
		}
		two := func(p transports.Poisoned) bool {
			return string(p.Message.Payload) == "2" || string(p.Message.Payload) == "4"
		}
		n, err := s.DiscardPoisoned(t.Context(), "a", bus.Selection{Filter: two})
		check(t, "error", err, nil)
		check(t, "deleted", n, 2)
		left := ""
		for _, p := range s.poisoned("a") {
			left += string(p.Message.Payload)
		}
		check(t, "left", left, "135")
	})
}

func TestRemoveSubscriptionDeletesItsQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := poisonedSetup(t)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.RemoveSubscription(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		_, err := s.transport.Depth(t.Context(), "shop.a")
		check(t, "is gone", errors.Is(err, transports.ErrNoSubscription), true)
	})
}

// fullPoison is a transport whose poison queue can't be written for a time.
type fullPoison struct {
	*memory.Transport
	broken atomic.Bool
	tries  atomic.Int32
}

func (f *fullPoison) Poison(ctx context.Context, subscription string, msg *message.Message) error {
	f.tries.Add(1)
	if f.broken.Load() {
		return errors.New("disk full")
	}
	return f.Transport.Poison(ctx, subscription, msg)
}

func TestSubscriptionPausesWhileItsPoisonQueueCanNotBeWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := &fullPoison{Transport: connect(t, newBroker(t, memory.Config{}))}
		transport.broken.Store(true)
		b := newBus(t, transport, bus.Config{Source: "shop"})
		var got notes[int]
		bus.Subscribe(b, "a", func(_ context.Context, e placed) error {
			got.add(e.N)
			if e.N == 1 {
				return bus.Permanent(errors.New("no"))
			}
			return nil
		}, bus.Concurrency(1))
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.PublishAll(t.Context(), placed{N: 1}, placed{N: 2}); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Minute)
		reasons, _ := b.PauseReasons("a")
		checkAll(t, "reasons", reasons, []string{"the poison queue can't be written"})
		d, _ := transport.Depth(t.Context(), "shop.a")
		check(t, "in the queue", d.Ready+d.InFlight, 2)
		if n := transport.tries.Load(); n < 5 || n > 40 {
			t.Errorf("%d tries in 10 minutes: it was given up or spun", n)
		}
		transport.broken.Store(false)
		pass(time.Minute)
		checkAll(t, "calls", got.get(), []int{1, 2})
		n := 0
		for _, err := range b.Poisoned(t.Context(), "a") {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		check(t, "poisoned", n, 1)
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTransportWithoutCapabilitiesHasItsFallbacks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := connect(t, newBroker(t, memory.Config{}))
		b := newBus(t, plain{transport}, bus.Config{Source: "shop"})
		calls := 0
		bus.Subscribe(b, "a", func(context.Context, placed) error { calls++; return errors.New("no") }, bus.Retry(exact(1, time.Minute)))
		var kept notes[bus.Raw]
		bus.SubscribeRaw(b, "keep", []string{"poison.#"}, func(_ context.Context, raw bus.Raw) error {
			kept.add(raw)
			return nil
		})
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), placed{N: 1}); err != nil {
			t.Fatal(err)
		}
		settle()
		d, _ := transport.Depth(t.Context(), "shop.a")
		check(t, "unsettled while it waits in place", d.InFlight, 1)
		pass(time.Minute)
		check(t, "calls", calls, 2)
		check(t, "poisoned", len(kept.get()), 1)
		check(t, "payload", string(kept.get()[0].Data), `{"n":1}`)
		_, err := b.Redrive(t.Context(), "a", bus.Selection{})
		check(t, "Redrive is unsupported", errors.Is(err, transports.ErrUnsupported), true)
		check(t, "RemoveSubscription is unsupported", errors.Is(b.RemoveSubscription(t.Context(), "a"), transports.ErrUnsupported), true)
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

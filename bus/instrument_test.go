package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
)

type probeKey struct{}

// hookWatcher notes what it is told.
type hookWatcher struct {
	name string
	seen *notes[string]
}

func (w hookWatcher) note(format string, args ...any) {
	w.seen.add(w.name + " " + fmt.Sprintf(format, args...))
}

func (w hookWatcher) Instrument(b bus.InstrumentedBus) bus.BusProbe {
	_, volatile := b.Transport.(transports.Volatile)
	w.note("bus %s volatile=%v", b.Service, volatile)
	return bus.BusProbe{
		Publish: func(next bus.PublishFunc) bus.PublishFunc {
			return func(ctx context.Context, batch []transports.Outgoing) error {
				w.note("publish %d", len(batch))
				return next(ctx, batch)
			}
		},
		Subscription: func(s bus.InstrumentedSubscription) bus.SubscriptionProbe {
			w.note("subscription %s ephemeral=%v unique=%v", s.Name, s.Ephemeral, s.Name != s.FullName)
			return bus.SubscriptionProbe{
				Process: func(h message.HandlerFunc) message.HandlerFunc {
					return func(msg *message.Message) ([]*message.Message, error) {
						before := msg.Context()
						defer msg.SetContext(before)
						msg.SetContext(context.WithValue(before, probeKey{}, "in "+w.name))
						out, err := h(msg)
						w.note("processed err=%v", err)
						return out, err
					}
				},
				Step: func(ctx context.Context, d bus.Delivery) {
					w.note("step %s %s %v", d.Outcome, d.Subscription, ctx.Value(probeKey{}))
				},
			}
		},
		Ended: func() { w.note("ended") },
	}
}

func TestInstrumentationSeesWhatABusDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen notes[string]
		s := newSetup(t, bus.Config{
			Retry:           bus.RetryPolicy{Attempts: 2, Redeliveries: []time.Duration{time.Second}},
			Instrumentation: []bus.Instrumentation{hookWatcher{"1", &seen}, hookWatcher{"2", &seen}},
			PublishMiddleware: []bus.PublishMiddleware{func(next bus.PublishFunc) bus.PublishFunc {
				return func(ctx context.Context, batch []transports.Outgoing) error {
					seen.add("own publish middleware")
					return next(ctx, batch)
				}
			}},
		})
		calls := 0
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error {
			if calls++; calls < 3 {
				return errors.New("boom")
			}
			return nil
		})
		bus.Subscribe(s.Bus, "live", func(context.Context, paid) error { return nil }, bus.Ephemeral())
		s.start()
		if err := s.Publish(t.Context(), placed{N: 1}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		checkAll(t, "seen", seen.get(), []string{
			"1 bus shop volatile=true", "2 bus shop volatile=true",
			"1 subscription shop.a ephemeral=false unique=false", "2 subscription shop.a ephemeral=false unique=false",
			"1 subscription shop.live ephemeral=true unique=true", "2 subscription shop.live ephemeral=true unique=true",
			"1 publish 1", "2 publish 1", "own publish middleware",
			"1 step retried a in 2", "2 step retried a in 2",
			"1 step redelivered a in 2", "2 step redelivered a in 2", "2 processed err=<nil>", "1 processed err=<nil>",
			"1 step handled a in 2", "2 step handled a in 2", "2 processed err=<nil>", "1 processed err=<nil>",
			"1 ended", "2 ended",
		})
	})
}

// An event that waits at the gate is not being processed.
func TestInstrumentationIsInsideOfThePauseGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen notes[string]
		s := newSetup(t, bus.Config{Instrumentation: []bus.Instrumentation{onlyProcess(func() { seen.add("processing") })}})
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error { return nil })
		s.start()
		if err := s.Pause("a"); err != nil {
			t.Fatal(err)
		}
		if err := s.Publish(t.Context(), placed{N: 1}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		check(t, "events that are being processed while paused", len(seen.get()), 0)
		if err := s.Resume("a"); err != nil {
			t.Fatal(err)
		}
		settle()
		check(t, "events processed", len(seen.get()), 1)
	})
}

// onlyProcess is an instrumentation with one hook.
type onlyProcess func()

func (f onlyProcess) Instrument(bus.InstrumentedBus) bus.BusProbe {
	return bus.BusProbe{Subscription: func(bus.InstrumentedSubscription) bus.SubscriptionProbe {
		return bus.SubscriptionProbe{Process: func(h message.HandlerFunc) message.HandlerFunc {
			return func(msg *message.Message) ([]*message.Message, error) {
				f()
				return h(msg)
			}
		}}
	}}
}

func TestInstrumentationEndsWithABusThatWasNotStarted(t *testing.T) {
	t.Parallel()
	var seen notes[string]
	s := newSetup(t, bus.Config{Instrumentation: []bus.Instrumentation{hookWatcher{"1", &seen}}})
	for range 2 {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	checkAll(t, "seen", seen.get(), []string{"1 bus shop volatile=true", "1 ended"})
}

func TestNilInstrumentationIsAFault(t *testing.T) {
	t.Parallel()
	_, err := bus.New(newSetup(t, bus.Config{}).transport, bus.Config{Source: "shop", Instrumentation: []bus.Instrumentation{nil}, LogInterval: -1})
	for _, fault := range []string{"Instrumentation[0] is nil", "LogInterval is -1ns"} {
		if err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("the error is %v, want %q in it", err, fault)
		}
	}
}

func TestAStormOfFailuresIsAFewLinesAndASummary(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		s := newSetup(t, bus.Config{
			Logger: slog.New(slog.NewTextHandler(&log, nil)), LogBurst: 5, LogInterval: time.Minute, Retry: bus.NoRetry(),
		})
		bus.Subscribe(s.Bus, "a", func(_ context.Context, e placed) error { return fmt.Errorf("order %d has no customer", e.N) })
		s.start()
		for n := range 200 {
			if err := s.Publish(t.Context(), placed{N: n}); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, "lines of poisoned events", strings.Count(log.String(), "outcome=poisoned subscription=shop.a event_type="), 5)
		check(t, "summaries, in time for the end of the bus", strings.Count(log.String(), `msg="similar lines left out" lines=195`), 1)
	})
}

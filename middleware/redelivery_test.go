package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// redelivered is what OnRedelivery is told.
type redelivered struct {
	err     error
	delay   time.Duration
	counted bool
}

// requeuing is a Redelivery through a store.
type requeuing struct {
	store
	told []redelivered
}

func (r *requeuing) config(delays ...time.Duration) middleware.RedeliveryConfig {
	return middleware.RedeliveryConfig{
		Subscription: subscription,
		Requeuer:     &r.store,
		Delays:       delays,
		OnRedelivery: func(_ *message.Message, err error, delay time.Duration, counted bool) {
			r.told = append(r.told, redelivered{err, delay, counted})
		},
	}
}

// next returns the copy that was requeued last.
func (r *requeuing) next(t *testing.T) *message.Message {
	t.Helper()
	stored := r.stored()
	if len(stored) == 0 {
		t.Fatal("nothing was requeued")
	}
	msg := stored[len(stored)-1]
	msg.SetContext(t.Context())
	return msg
}

func TestRedeliveryRequeuesAFailedMessageWithTheDelaysInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r requeuing
		delays := []time.Duration{time.Second, time.Minute, time.Hour}
		h := middleware.Redelivery(r.config(delays...))(failing(99).handle)
		msg := newMessage(t.Context())
		first := time.Now().UTC().Format(time.RFC3339Nano)
		for i, delay := range delays {
			out, err := h(msg)
			if out != nil || err != nil {
				t.Fatalf("%d messages and error %v, want none", len(out), err)
			}
			equal(t, "told", r.told[i], redelivered{errBoom, delay, true})
			equal(t, "delay", r.writes[i].delay, delay)
			equal(t, "subscription", r.writes[i].subscription, subscription)
			msg = r.next(t)
			equal(t, "id", msg.UUID, "event-1")
			equal(t, "payload", string(msg.Payload), `{"orderId":1}`)
			wantHeader(t, msg, transports.HeaderAttempts, strconv.Itoa(i+1))
			wantHeader(t, msg, transports.HeaderRedeliveries, strconv.Itoa(i+1))
			wantHeader(t, msg, transports.HeaderFirstFailure, first)
			time.Sleep(delay)
		}
		_, err := h(msg)
		equal(t, "error when they are used up", err, errBoom)
		equal(t, "requeued", len(r.stored()), 3)
		wantHeader(t, msg, transports.HeaderAttempts, "4")
	})
}

func TestRedeliveryPassesSuccessOn(t *testing.T) {
	t.Parallel()
	var r requeuing
	want := []*message.Message{newMessage(t.Context())}
	out, err := middleware.Redelivery(r.config(0))(func(*message.Message) ([]*message.Message, error) { return want, nil })(newMessage(t.Context()))
	equal(t, "error", err, nil)
	equalSlices(t, "messages", out, want)
	equal(t, "requeued", len(r.stored()), 0)
}

func TestRedeliveryAndRetryCountEachCallOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r requeuing
		handler := failing(99)
		h := stack(handler.handle, middleware.Redelivery(r.config(0, 0)), middleware.Retry(middleware.RetryConfig{Attempts: 2}))
		msg := newMessage(t.Context())
		for i := range 3 {
			_, err := h(msg)
			equal(t, "error", err, map[bool]error{true: errBoom}[i == 2])
			equal(t, "attempts", transports.Attempts(msg), handler.calls)
			if i < 2 {
				msg = r.next(t)
			}
		}
		equal(t, "calls", handler.calls, 6)
	})
}

func TestRedeliveryHeedsTheVerdict(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err          error
		requeued     bool
		delay        time.Duration
		redeliveries string
		attempts     int
	}{
		"none":      {errBoom, true, time.Minute, "1", 1},
		"after":     {middleware.RetryAfter(time.Hour, errBoom), true, time.Hour, "1", 1},
		"defer":     {middleware.Defer(time.Hour, errBoom), true, time.Hour, "", 0},
		"permanent": {middleware.Permanent(errBoom), false, 0, "", 1},
		"discard":   {middleware.Discard(errBoom), false, 0, "", 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r requeuing
			msg := newMessage(t.Context())
			_, err := middleware.Redelivery(r.config(time.Minute))((&script{errs: []error{tt.err}}).handle)(msg)
			wantHeader(t, msg, transports.HeaderRedeliveries, tt.redeliveries)
			equal(t, "attempts", transports.Attempts(msg), tt.attempts)
			if !tt.requeued {
				equal(t, "error", err, tt.err)
				equal(t, "requeued", len(r.stored()), 0)
				return
			}
			equal(t, "error", err, nil)
			equal(t, "requeued", len(r.stored()), 1)
			equal(t, "told", r.told[0], redelivered{tt.err, tt.delay, tt.redeliveries != ""})
		})
	}
}

func TestRedeliveryAfterTheLastOneIsNotGranted(t *testing.T) {
	t.Parallel()
	var r requeuing
	h := middleware.Redelivery(r.config(0))((&script{errs: []error{errBoom, middleware.RetryAfter(0, errBoom)}}).handle)
	_, err := h(newMessage(t.Context()))
	equal(t, "error", err, nil)
	_, err = h(r.next(t))
	wantErrorIs(t, err, errBoom)
	equal(t, "requeued", len(r.stored()), 1)
}

func TestRedeliveryDefersForADayWithoutCounting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r requeuing
		poisoned := &store{}
		h := stack(func(*message.Message) ([]*message.Message, error) { return nil, middleware.Defer(time.Hour, errBoom) },
			middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: poisoned}),
			middleware.Redelivery(r.config(0)),
			middleware.Retry(middleware.RetryConfig{}),
		)
		msg := newMessage(t.Context())
		start := time.Now()
		for len(poisoned.stored()) == 0 {
			_, err := h(msg)
			equal(t, "error", err, nil)
			if time.Since(start) > 48*time.Hour {
				t.Fatal("it is deferred for ever")
			}
			msg = r.next(t)
			time.Sleep(time.Hour)
		}
		equal(t, "poisoned after", poisoned.writes[0].time.Sub(start), 25*time.Hour) // the first time beyond a day
		wantHeader(t, poisoned.stored()[0], transports.HeaderPoisonAttempts, "0")
		wantHeader(t, poisoned.stored()[0], transports.HeaderPoisonReason, "boom")
	})
}

// An event that is put off now and then is not one that nobody takes.
func TestRedeliveryStartsTheDayOfDeferralAgainAfterATry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r requeuing
		later := middleware.Defer(20*time.Hour, errBoom)
		h := middleware.Redelivery(r.config(time.Hour))((&script{errs: []error{later, errBoom, later, later}}).handle)
		msg := newMessage(t.Context())
		for range 4 {
			_, err := h(msg)
			equal(t, "error", err, nil)
			msg = r.next(t)
			time.Sleep(20 * time.Hour)
		}
		equal(t, "attempts", transports.Attempts(msg), 1)
	})
}

func TestRedeliveryLetsInterruptedMessagesGoBackAsTheyWere(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cancel bool
		err    error
	}{
		"the context has ended":        {true, errBoom},
		"a gate further in was closed": {false, middleware.ErrInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r requeuing
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			msg := newMessage(ctx)
			_, err := middleware.Redelivery(r.config(0))(func(*message.Message) ([]*message.Message, error) {
				if test.cancel {
					cancel()
				}
				return nil, test.err
			})(msg)
			wantErrorIs(t, err, middleware.ErrInterrupted)
			wantErrorIs(t, err, test.err)
			equal(t, "requeued", len(r.writes), 0)
			equal(t, "headers", len(msg.Metadata), 2)
		})
	}
}

func TestRedeliveryWithoutARequeuerWaitsInPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r requeuing
		cfg := r.config(time.Second, time.Minute)
		cfg.Requeuer = nil
		var calls []time.Duration
		var attempts []int
		start := time.Now()
		h := stack(func(msg *message.Message) ([]*message.Message, error) {
			md, _ := events.MetadataFrom(msg.Context())
			attempts = append(attempts, md.Attempt)
			calls = append(calls, time.Since(start))
			if len(calls) == 4 {
				return nil, middleware.Defer(time.Hour, errBoom)
			}
			return nil, errBoom
		}, middleware.Correlation(subscription), middleware.Redelivery(cfg), middleware.Retry(middleware.RetryConfig{Attempts: 2, MinDelay: 1, MaxDelay: 1}))
		msg := newMessage(t.Context())
		_, err := h(msg)
		equal(t, "error", err, errBoom)
		for i, want := range []time.Duration{0, 0, time.Second, time.Second, time.Second + time.Hour, time.Second + time.Hour, time.Second + time.Hour + time.Minute, time.Second + time.Hour + time.Minute} {
			equal(t, "time of call", calls[i].Truncate(time.Second), want)
		}
		equalSlices(t, "attempts", attempts, []int{1, 2, 3, 4, 4, 5, 6, 7})
		wantHeader(t, msg, transports.HeaderAttempts, "7")
		equal(t, "told", len(r.told), 3)
	})
}

func TestRedeliveryBoundsTheWaitsInPlaceTogether(t *testing.T) {
	t.Parallel()
	for name, handlerErr := range map[string]error{
		"failed":   errBoom,
		"deferred": middleware.Defer(10*time.Minute, errBoom),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				h := middleware.Redelivery(middleware.RedeliveryConfig{
					Delays:       []time.Duration{10 * time.Minute, 5 * time.Minute, 5 * time.Minute, 5 * time.Minute},
					InPlaceLimit: 20 * time.Minute,
				})(func(*message.Message) ([]*message.Message, error) { return nil, handlerErr })
				_, err := h(newMessage(t.Context()))
				wantErrorIs(t, err, errBoom)
				equal(t, "waited", time.Since(start), 20*time.Minute)
				equal(t, "goes back, as it was not tried", errors.Is(err, middleware.ErrInterrupted), name == "deferred")
			})
		})
	}
}

func TestRedeliveryEndsItsWaitInPlaceAtShutdown(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(stopping chan struct{}, cancel context.CancelFunc){
		"stopping":           func(stopping chan struct{}, _ context.CancelFunc) { close(stopping) },
		"end of the context": func(_ chan struct{}, cancel context.CancelFunc) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				stopping := make(chan struct{})
				time.AfterFunc(time.Minute, func() { stop(stopping, cancel) })
				start := time.Now()
				h := middleware.Redelivery(middleware.RedeliveryConfig{Delays: []time.Duration{time.Hour}, Stopping: stopping})(failing(9).handle)
				_, err := h(newMessage(ctx))
				wantErrorIs(t, err, middleware.ErrInterrupted)
				wantErrorIs(t, err, errBoom)
				equal(t, "waited", time.Since(start), time.Minute)
				cancel()
			})
		})
	}
}

// Headers come from strangers too: whatever they say, a message is poisoned in the
// end, not before its redeliveries unless they say that it has had them, and it has
// no more of them than are due.
func FuzzRedeliveryHeaders(f *testing.F) {
	for _, s := range []string{"", "0", "1", "2", "-1", "x", "1e3", "99999999999999999999", "9223372036854775807", "-9223372036854775808", " 1", "١"} {
		for _, since := range []string{"", "x", "2999-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "2000-01-01T00:00:00+25:00"} {
			f.Add(s, s, since, since, true)
			f.Add(s, s, since, since, false)
		}
	}
	f.Fuzz(func(t *testing.T, attempts, redeliveries, deferredSince, firstFailure string, deferring bool) {
		synctest.Test(t, func(t *testing.T) {
			handlerErr := errBoom
			if deferring {
				handlerErr = middleware.Defer(time.Hour, errBoom)
			}
			var r requeuing
			poisoned := &store{}
			h := stack(func(*message.Message) ([]*message.Message, error) { return nil, handlerErr },
				middleware.Correlation(subscription),
				middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: poisoned}),
				middleware.Redelivery(r.config(time.Minute, time.Minute)),
				middleware.Retry(middleware.RetryConfig{Attempts: 2, MinDelay: 1, MaxDelay: 1}),
			)
			msg := newMessage(t.Context())
			msg.Metadata[transports.HeaderAttempts] = attempts
			msg.Metadata[transports.HeaderRedeliveries] = redeliveries
			msg.Metadata[transports.HeaderDeferredSince] = deferredSince
			msg.Metadata[transports.HeaderFirstFailure] = firstFailure

			had, err := strconv.Atoi(redeliveries)
			if err != nil || had < 0 {
				had = 0
			}
			before := transports.Attempts(msg)
			wantRedeliveries := max(2-had, 0)
			since, err := time.Parse(time.RFC3339, deferredSince)
			long := err == nil && time.Since(since) > 24*time.Hour
			for len(poisoned.stored()) == 0 {
				if _, err := h(msg); err != nil {
					t.Fatal(err)
				}
				if len(r.told) > 30 {
					t.Fatal("it comes back for ever")
				}
				if n := len(r.told); n > 0 && len(poisoned.stored()) == 0 {
					msg = r.next(t)
					time.Sleep(r.told[n-1].delay)
				}
			}
			p := transports.ReadPoisoned(poisoned.stored()[0])
			switch {
			case deferring && long:
				equal(t, "redeliveries", len(r.told), 0)
			case deferring:
				if n := len(r.told); n < 1 || n > 25 {
					t.Errorf("deferred %d times", n)
				}
				equal(t, "attempts", p.Attempts, before)
			default:
				equal(t, "redeliveries", len(r.told), wantRedeliveries)
				if before < 1<<29 { // so that counting on keeps it sane
					equal(t, "attempts", p.Attempts, before+2*(wantRedeliveries+1))
				}
			}
			if _, err := time.Parse(time.RFC3339Nano, firstFailure); err != nil && p.FirstFailure.IsZero() {
				t.Errorf("first failure %q is not replaced", firstFailure)
			}
		})
	})
}

// What the transport can never keep is not tried again: waiting holds a place and changes
// nothing.
func TestRedeliveryThatIsNeverPossibleIsPermanent(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{"delay": transports.ErrUnsupported, "size": transports.ErrTooLarge} {
		synctest.Test(t, func(t *testing.T) {
			r := requeuing{store: store{err: fmt.Errorf("requeue: %w", refusal), failures: 99}}
			for _, cause := range []error{middleware.RetryAfter(960*time.Hour, errBoom), middleware.Defer(960*time.Hour, errBoom), errBoom} {
				writes := len(r.writes)
				h := middleware.Redelivery(r.config(time.Second))(func(*message.Message) ([]*message.Message, error) { return nil, cause })
				_, err := h(newMessage(t.Context()))
				if !errors.Is(err, errBoom) || !errors.Is(err, refusal) || middleware.VerdictOf(err).Kind != middleware.KindPermanent {
					t.Errorf("%s: %v; want both errors, as permanent", name, err)
				}
				equal(t, "writes", len(r.writes), writes+1)
			}
		})
	}
}

package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

func TestRetryCallsTheHandlerAgainUntilItSucceeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var retried []string
		handler := failing(2)
		h := stack(func(msg *message.Message) ([]*message.Message, error) {
			if _, err := handler.handle(msg); err != nil {
				return nil, err
			}
			return []*message.Message{newMessage(t.Context())}, nil
		}, middleware.Retry(middleware.RetryConfig{OnRetry: func(_ *message.Message, err error, attempt int) {
			retried = append(retried, fmt.Sprint(attempt, " ", err))
		}}))
		msg := newMessage(t.Context())
		start := time.Now().UTC()

		out, err := h(msg)
		if err != nil || len(out) != 1 {
			t.Fatalf("%d messages and error %v; want the handler's one message", len(out), err)
		}
		equal(t, "calls", handler.calls, 3)
		equalSlices(t, "retried", retried, []string{"1 boom", "2 boom"})
		wantHeader(t, msg, transports.HeaderAttempts, "2")
		wantHeader(t, msg, transports.HeaderFirstFailure, start.Format(time.RFC3339Nano))
	})
}

func TestRetryReturnsTheHandlersLastErrorWhenItsAttemptsAreUsedUp(t *testing.T) {
	t.Parallel()
	for attempts, want := range map[int]int{0: 3, -1: 3, 1: 1, 2: 2, 5: 5} {
		t.Run(fmt.Sprint("Attempts ", attempts), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var handler script
				for i := range 9 {
					handler.errs = append(handler.errs, fmt.Errorf("error %d", i+1))
				}
				retries := 0
				h := middleware.Retry(middleware.RetryConfig{Attempts: attempts, OnRetry: func(*message.Message, error, int) { retries++ }})(handler.handle)
				msg := newMessage(t.Context())

				out, err := h(msg)
				if out != nil || !errors.Is(err, handler.errs[want-1]) || err.Error() != handler.errs[want-1].Error() {
					t.Errorf("%d messages and error %v, want error %d", len(out), err, want)
				}
				equal(t, "calls", handler.calls, want)
				equal(t, "retries", retries, want-1)
				wantHeader(t, msg, transports.HeaderAttempts, fmt.Sprint(want))
			})
		})
	}
}

func TestRetryTakesAVerdictForAnAnswer(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err     error
		counted int
	}{
		"permanent": {middleware.Permanent(errBoom), 1},
		"discard":   {middleware.Discard(errBoom), 1},
		"after":     {middleware.RetryAfter(time.Second, errBoom), 1},
		"defer":     {middleware.Defer(time.Second, errBoom), 0}, // not tried
		"interrupt": {middleware.ErrInterrupted, 0},
	}
	for name, tt := range tests {
		for _, before := range []int{0, 1} {
			t.Run(fmt.Sprint(name, " after ", before), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					handler := failing(before)
					handler.errs = append(handler.errs, tt.err)
					retries := 0
					h := middleware.Retry(middleware.RetryConfig{OnRetry: func(*message.Message, error, int) { retries++ }})(handler.handle)
					msg := newMessage(t.Context())
					_, err := h(msg)
					wantErrorIs(t, err, tt.err)
					equal(t, "calls", handler.calls, before+1)
					equal(t, "retries", retries, before)
					equal(t, "attempts", transports.Attempts(msg), before+tt.counted)
				})
			})
		}
	}
}

func TestRetryBacksOffExponentiallyWithFullJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bounds := []time.Duration{ // of the retries
			100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond,
		}
		longest := make([]time.Duration, len(bounds))
		shortest := []time.Duration{time.Hour, time.Hour, time.Hour, time.Hour, time.Hour}
		for range 300 {
			var last time.Time
			n := 0
			h := middleware.Retry(middleware.RetryConfig{
				Attempts: 6, MinDelay: 100 * time.Millisecond, MaxDelay: 500 * time.Millisecond,
			})(func(*message.Message) ([]*message.Message, error) {
				if n > 0 {
					d := time.Since(last)
					longest[n-1], shortest[n-1] = max(longest[n-1], d), min(shortest[n-1], d)
				}
				n++
				last = time.Now()
				return nil, errBoom
			})
			_, err := h(newMessage(t.Context()))
			wantErrorIs(t, err, errBoom)
		}
		for i, bound := range bounds {
			if longest[i] > bound || longest[i] < bound*9/10 || shortest[i] > bound/10 {
				t.Errorf("back-off %d lasts from %v to %v, want zero to %v", i+1, shortest[i], longest[i], bound)
			}
		}
	})
}

func TestRetryBacksOffWithoutOverflow(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]middleware.RetryConfig{
		"many attempts":   {Attempts: 100, MinDelay: 1, MaxDelay: time.Minute},
		"nothing":         {MinDelay: -1, MaxDelay: -1},
		"smaller maximum": {MinDelay: time.Hour, MaxDelay: 1},
		"no maximum":      {Attempts: 2, MinDelay: 1<<63 - 1, MaxDelay: 1<<63 - 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				_, err := middleware.Retry(cfg)(failing(1000).handle)(newMessage(ctx))
				wantErrorIs(t, err, errBoom)
			})
		})
	}
}

func TestRetryEndsItsBackOffWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		handler := failing(99)
		h := middleware.Retry(middleware.RetryConfig{MinDelay: time.Hour, MaxDelay: time.Hour, OnRetry: func(*message.Message, error, int) {
			cancel()
		}})(handler.handle)
		msg := newMessage(ctx)
		start := time.Now()
		_, err := h(msg)
		equal(t, "error", err, errBoom) // and not context.Canceled
		equal(t, "waited", time.Since(start), 0)
		equal(t, "calls", handler.calls, 1)
		wantHeader(t, msg, transports.HeaderAttempts, "1") // which has failed before
	})
}

func TestRetryCountsNoCallThatTheEndOfTheContextInterrupted(t *testing.T) {
	t.Parallel()
	for _, before := range []int{0, 1} {
		t.Run(fmt.Sprint("after ", before), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				calls, retries := 0, 0
				h := middleware.Retry(middleware.RetryConfig{OnRetry: func(*message.Message, error, int) { retries++ }})(
					func(*message.Message) ([]*message.Message, error) {
						calls++
						if calls > before {
							cancel()
						}
						return nil, errBoom
					})
				msg := newMessage(ctx)
				_, err := h(msg)
				equal(t, "error", err, errBoom)
				equal(t, "calls", calls, before+1)
				equal(t, "retries", retries, before)
				equal(t, "attempts", transports.Attempts(msg), before)
			})
		})
	}
}

func TestRetryTellsTheHandlerWhichAttemptItIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var attempts []int
		h := stack(func(msg *message.Message) ([]*message.Message, error) {
			md, _ := events.MetadataFrom(msg.Context())
			attempts = append(attempts, md.Attempt)
			return nil, errBoom
		}, middleware.Correlation(subscription), middleware.Retry(middleware.RetryConfig{}))
		msg := newMessage(t.Context())
		msg.Metadata[transports.HeaderAttempts] = "4" // in earlier deliveries
		_, err := h(msg)
		wantErrorIs(t, err, errBoom)
		equalSlices(t, "attempts", attempts, []int{5, 6, 7})
	})
}

func TestRetryKeepsTheTimeOfTheFirstFailure(t *testing.T) {
	t.Parallel()
	const first = "2001-02-03T04:05:06Z"
	msg := newMessage(t.Context())
	msg.Metadata[transports.HeaderFirstFailure] = first
	_, err := middleware.Retry(middleware.RetryConfig{Attempts: 1})(failing(1).handle)(msg)
	wantErrorIs(t, err, errBoom)
	wantHeader(t, msg, transports.HeaderFirstFailure, first)
}

func TestRetryPassesAPanicOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		h := middleware.Retry(middleware.RetryConfig{})(func(*message.Message) ([]*message.Message, error) {
			if calls++; calls == 2 {
				panic("boom")
			}
			return nil, errBoom
		})
		defer func() { equal(t, "panic", recover(), any("boom")) }()
		_, err := h(newMessage(t.Context()))
		t.Error("no panic but", err)
	})
}

package middleware_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/ratelimiter"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

func TestRateLimitMakesMessagesWaitAndCountsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		h := stack(func(*message.Message) ([]*message.Message, error) {
			at = append(at, time.Since(start))
			return nil, nil
		}, middleware.Retry(middleware.RetryConfig{}), middleware.RateLimit(ratelimiter.NewSmoothWithMaxRate[any](time.Minute), nil))
		for range 4 {
			msg := newMessage(t.Context())
			_, err := h(msg)
			equal(t, "error", err, nil)
			wantHeader(t, msg, transports.HeaderAttempts, "")
		}
		equalSlices(t, "times", at, []time.Duration{0, time.Minute, 2 * time.Minute, 3 * time.Minute})
	})
}

func TestRateLimitIsOfEachTry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		handler := failing(2)
		h := stack(handler.handle, middleware.Retry(middleware.RetryConfig{MinDelay: 1, MaxDelay: 1}),
			middleware.RateLimit(ratelimiter.NewBursty[any](1, time.Minute), nil))
		_, err := h(newMessage(t.Context()))
		equal(t, "error", err, nil)
		equal(t, "calls", handler.calls, 3)
		equal(t, "took", time.Since(start).Round(time.Second), 2*time.Minute)
	})
}

// Watermill's Throttle waits on.
func TestRateLimitEndsItsWait(t *testing.T) {
	t.Parallel()
	for reason, tt := range map[string]struct {
		stop func(stopping chan struct{}, cancel context.CancelFunc)
		took time.Duration
	}{
		"stopping":           {func(stopping chan struct{}, _ context.CancelFunc) { close(stopping) }, time.Minute},
		"end of the context": {func(_ chan struct{}, cancel context.CancelFunc) { cancel() }, time.Minute},
		"hold limit":         {func(chan struct{}, context.CancelFunc) {}, 10 * time.Minute},
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				limiter := ratelimiter.NewSmoothWithMaxRate[any](time.Hour)
				limiter.TryAcquirePermit()
				stopping := make(chan struct{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start := time.Now()
				handler := failing(0)
				msg := newMessage(ctx)
				done := deliver(stack(handler.handle, middleware.HoldLimit(10*time.Minute), middleware.Retry(middleware.RetryConfig{}),
					middleware.RateLimit(limiter, stopping)), msg)
				time.Sleep(time.Minute)
				tt.stop(stopping, cancel)
				wantErrorIs(t, <-done, middleware.ErrInterrupted)
				equal(t, "took", time.Since(start), tt.took)
				equal(t, "calls", handler.calls, 0)
				wantHeader(t, msg, transports.HeaderAttempts, "")
			})
		})
	}
}

func TestRateLimitReservesNoPermitThatItCannotUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limiter := ratelimiter.NewSmoothWithMaxRate[any](time.Hour)
		limiter.TryAcquirePermit()
		h := stack(failing(0).handle, middleware.HoldLimit(10*time.Minute), middleware.RateLimit(limiter, nil))
		for range 7 { // 70 minutes
			_, err := h(newMessage(t.Context()))
			if err == nil {
				return
			}
			wantErrorIs(t, err, middleware.ErrInterrupted)
		}
		t.Error("the permit of the next hour was used up by those who gave up")
	})
}

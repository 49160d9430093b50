package middleware_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/middleware"
)

// taking is a handler that takes d, or less when its context ends before.
func taking(d time.Duration) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		select {
		case <-time.After(d):
			return nil, nil
		case <-msg.Context().Done():
			return nil, context.Cause(msg.Context())
		}
	}
}

func TestTimeoutEndsTheContextOfTheHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		msg := newMessage(t.Context())
		start := time.Now()
		_, err := middleware.Timeout(time.Second)(taking(time.Hour))(msg)
		late, ok := errors.AsType[*middleware.TimeoutError](err)
		if !ok {
			t.Fatalf("error is %v, want a TimeoutError", err)
		}
		equal(t, "limit", late.After, time.Second)
		equal(t, "took", time.Since(start), time.Second)
		equal(t, "text", err.Error(), "handler timed out after 1s: handler timed out after 1s")
		if msg.Context().Err() != nil {
			t.Error("the message's own context has ended")
		}
	})
}

func TestTimeoutWrapsTheErrorOfALateHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := middleware.Timeout(time.Second)(func(*message.Message) ([]*message.Message, error) {
			time.Sleep(time.Minute) // it does not heed its context
			return []*message.Message{newMessage(t.Context())}, middleware.Permanent(errBoom)
		})
		out, err := h(newMessage(t.Context()))
		if out != nil {
			t.Error("the output of a failed handler is passed on")
		}
		equal(t, "text", err.Error(), "handler timed out after 1s: boom")
		wantErrorIs(t, err, errBoom)
		equal(t, "verdict", middleware.VerdictOf(err).Kind, middleware.KindPermanent)
	})
}

func TestTimeoutLetsALateSuccessPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		want := []*message.Message{newMessage(t.Context())}
		out, err := middleware.Timeout(time.Second)(func(*message.Message) ([]*message.Message, error) {
			time.Sleep(time.Minute)
			return want, nil
		})(newMessage(t.Context()))
		equal(t, "error", err, nil)
		equalSlices(t, "messages", out, want)
	})
}

func TestTimeoutLeavesTheErrorsOfOthersAlone(t *testing.T) {
	t.Parallel()
	t.Run("in time", func(t *testing.T) {
		t.Parallel()
		_, err := middleware.Timeout(time.Hour)(failing(1).handle)(newMessage(t.Context()))
		equal(t, "error", err, errBoom)
	})
	t.Run("shutdown", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(errBoom) })
			_, err := middleware.Timeout(time.Minute)(taking(time.Hour))(newMessage(ctx))
			equal(t, "error", err, errBoom)
		})
	})
	t.Run("shutdown after the timeout", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := middleware.Timeout(time.Second)(func(*message.Message) ([]*message.Message, error) {
				time.Sleep(time.Minute)
				cancel()
				return nil, errBoom
			})(newMessage(ctx))
			equal(t, "error", err, errBoom)
		})
	})
}

// Each retry has the whole time again.
func TestTimeoutIsPerAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		h := stack(func(msg *message.Message) ([]*message.Message, error) {
			if calls++; calls == 3 {
				return taking(900 * time.Millisecond)(msg)
			}
			return taking(time.Hour)(msg)
		}, middleware.Retry(middleware.RetryConfig{}), middleware.Timeout(time.Second))
		_, err := h(newMessage(t.Context()))
		equal(t, "error", err, nil)
		equal(t, "calls", calls, 3)
	})
}

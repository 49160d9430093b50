package middleware_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/fallback"
	"github.com/failsafe-go/failsafe-go/hedgepolicy"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/failsafe-go/failsafe-go/timeout"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

func TestPoliciesOfFailsafeGoGuardAHandler(t *testing.T) {
	t.Parallel()
	t.Run("retry", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			handler := failing(2)
			_, err := middleware.Policies(retrypolicy.NewBuilder[any]().WithMaxRetries(2).Build())(handler.handle)(newMessage(t.Context()))
			equal(t, "error", err, nil)
			equal(t, "calls", handler.calls, 3)
		})
	})
	t.Run("retry that is used up keeps the error and its verdict", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			_, err := middleware.Policies(retrypolicy.NewBuilder[any]().WithMaxRetries(2).Build())(
				returning(middleware.RetryAfter(time.Hour, errBoom)))(newMessage(t.Context()))
			wantErrorIs(t, err, errBoom)
			equal(t, "verdict", middleware.VerdictOf(err), middleware.Verdict{Kind: middleware.KindAfter, Delay: time.Hour})
		})
	})
	t.Run("fallback", func(t *testing.T) {
		t.Parallel()
		_, err := middleware.Policies(fallback.NewWithResult[any](nil))(failing(1).handle)(newMessage(t.Context()))
		equal(t, "error", err, nil)
	})
	t.Run("timeout", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			msg := newMessage(t.Context())
			start := time.Now()
			_, err := middleware.Policies(timeout.New[any](time.Second))(taking(time.Hour))(msg)
			wantErrorIs(t, err, timeout.ErrExceeded)
			equal(t, "took", time.Since(start), time.Second)
			equal(t, "context of the message", msg.Context().Err(), nil)
		})
	})
	t.Run("timeout, and a success that is late", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			_, err := middleware.Policies(timeout.New[any](time.Second))(func(*message.Message) ([]*message.Message, error) {
				time.Sleep(time.Minute)
				return nil, nil
			})(newMessage(t.Context()))
			equal(t, "error", err, nil) // it would be handled twice
		})
	})
	t.Run("hedge, which is not made", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			_, err := middleware.Policies(hedgepolicy.NewWithDelay[any](time.Second))(func(*message.Message) ([]*message.Message, error) {
				calls++
				time.Sleep(time.Minute)
				return nil, nil
			})(newMessage(t.Context()))
			equal(t, "error", err, nil)
			equal(t, "calls", calls, 1)
		})
	})
	t.Run("messages of the handler", func(t *testing.T) {
		t.Parallel()
		want := []*message.Message{newMessage(t.Context())}
		out, err := middleware.Policies(timeout.New[any](time.Hour))(func(*message.Message) ([]*message.Message, error) {
			return want, nil
		})(newMessage(t.Context()))
		equal(t, "error", err, nil)
		equalSlices(t, "messages", out, want)
	})
}

func TestPolicyThatRefusesPutsTheMessageOffUncounted(t *testing.T) {
	t.Parallel()
	full := bulkhead.New[any](1)
	full.TryAcquirePermit()
	handler := failing(0)
	msg := newMessage(t.Context())
	_, err := stack(handler.handle, middleware.Retry(middleware.RetryConfig{}), middleware.Policies(full))(msg)
	wantErrorIs(t, err, bulkhead.ErrFull)
	equal(t, "verdict", middleware.VerdictOf(err), middleware.Verdict{Kind: middleware.KindDefer, Delay: time.Second})
	equal(t, "calls", handler.calls, 0)
	wantHeader(t, msg, transports.HeaderAttempts, "")
}

func TestPoliciesTakeVerdictsForTheHandlersOwnDecision(t *testing.T) {
	t.Parallel()
	for name, verdict := range map[string]error{
		"Permanent": middleware.Permanent(errBoom), "Discard": middleware.Discard(errBoom),
		"Defer": middleware.Defer(time.Second, errBoom), "interruption": middleware.ErrInterrupted,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cb := circuitbreaker.NewWithDefaults[any]()
			handler := &script{errs: []error{verdict}}
			_, err := middleware.Policies(fallback.NewWithResult[any](nil), retrypolicy.NewWithDefaults[any](), cb)(handler.handle)(newMessage(t.Context()))
			equal(t, "error", err, verdict)
			equal(t, "calls", handler.calls, 1)
			equal(t, "failures of the circuit", cb.Metrics().Failures(), 0)
		})
	}
}

func TestPoliciesEndWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		handler := failing(9)
		msg := newMessage(ctx)
		done := deliver(stack(handler.handle, middleware.Poison(middleware.PoisonConfig{Queue: &store{}}),
			middleware.Policies(retrypolicy.NewBuilder[any]().WithDelay(time.Hour).Build())), msg)
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, middleware.ErrInterrupted) {
			t.Errorf("error is %v", err)
		}
		equal(t, "calls", handler.calls, 1)
	})
}

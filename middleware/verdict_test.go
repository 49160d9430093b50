package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
)

func TestVerdictIsTheOutermostOneOfAnError(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err  error
		want middleware.Verdict
	}{
		"no error":            {nil, middleware.Verdict{Kind: middleware.KindRetry}},
		"no verdict":          {errBoom, middleware.Verdict{Kind: middleware.KindRetry}},
		"permanent":           {middleware.Permanent(errBoom), middleware.Verdict{Kind: middleware.KindPermanent}},
		"discard":             {middleware.Discard(errBoom), middleware.Verdict{Kind: middleware.KindDiscard}},
		"after":               {middleware.RetryAfter(time.Hour, errBoom), middleware.Verdict{Kind: middleware.KindAfter, Delay: time.Hour}},
		"defer":               {middleware.Defer(time.Hour, errBoom), middleware.Verdict{Kind: middleware.KindDefer, Delay: time.Hour}},
		"after, in the past":  {middleware.RetryAfter(-time.Hour, errBoom), middleware.Verdict{Kind: middleware.KindAfter}},
		"defer, to the past":  {middleware.Defer(-time.Hour, errBoom), middleware.Verdict{Kind: middleware.KindDefer}},
		"wrapped":             {fmt.Errorf("handle: %w", middleware.Permanent(errBoom)), middleware.Verdict{Kind: middleware.KindPermanent}},
		"joined":              {errors.Join(errBoom, middleware.Discard(errBoom)), middleware.Verdict{Kind: middleware.KindDiscard}},
		"one inside another":  {middleware.Permanent(middleware.Discard(errBoom)), middleware.Verdict{Kind: middleware.KindPermanent}},
		"panic with an error": {&middleware.PanicError{Value: middleware.Permanent(errBoom)}, middleware.Verdict{Kind: middleware.KindPermanent}},
		"late":                {&middleware.TimeoutError{Err: middleware.Discard(errBoom)}, middleware.Verdict{Kind: middleware.KindDiscard}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			equal(t, "verdict", middleware.VerdictOf(tt.err), tt.want)
		})
	}
}

func TestVerdictKeepsTheErrorAndItsText(t *testing.T) {
	t.Parallel()
	err := middleware.Permanent(fmt.Errorf("charge card: %w", errBoom))
	wantErrorIs(t, err, errBoom)
	equal(t, "text", err.Error(), "charge card: boom")
}

func TestVerdictWithoutAnErrorHasAText(t *testing.T) {
	t.Parallel()
	tests := map[string]error{
		"permanent failure": middleware.Permanent(nil),
		"discarded":         middleware.Discard(nil),
		"retry later":       middleware.RetryAfter(time.Hour, nil),
		"deferred":          middleware.Defer(time.Hour, nil),
	}
	for want, err := range tests {
		equal(t, "text", err.Error(), want)
	}
}

// Middleware further in, a user's own or Watermill's Timeout, leaves its context
// on the message.
func TestMessageHasItsContextBackAfterEachMiddleware(t *testing.T) {
	t.Parallel()
	memory, err := middleware.NewMemoryDedup(middleware.MemoryDedupConfig{})
	if err != nil {
		t.Fatal(err)
	}
	middlewares := map[string]message.HandlerMiddleware{
		"correlation":       middleware.Correlation(subscription),
		"poison":            middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: &store{}}),
		"redelivery":        middleware.Redelivery(middleware.RedeliveryConfig{Requeuer: &store{}, Delays: []time.Duration{0, 0, 0}}),
		"in place":          middleware.Redelivery(middleware.RedeliveryConfig{Delays: []time.Duration{0}}),
		"dedup":             middleware.Dedup(middleware.DedupConfig{Store: memory}),
		"dedup with leases": middleware.Dedup(middleware.DedupConfig{Store: newLeases(time.Hour)}),
		"retry":             middleware.Retry(middleware.RetryConfig{MinDelay: 1, MaxDelay: 1}),
		"timeout":           middleware.Timeout(time.Hour),
	}
	outcomes := map[string]func() error{
		"success":  func() error { return nil },
		"an error": func() error { return errBoom },
		"panic":    func() error { panic("boom") },
	}
	for name, mw := range middlewares {
		for outcome, end := range outcomes {
			t.Run(name+"/"+outcome, func(t *testing.T) {
				t.Parallel()
				base := events.WithMetadata(t.Context(), &events.Metadata{})
				msg := newMessage(base)
				msg.UUID = t.Name()
				h := mw(func(msg *message.Message) ([]*message.Message, error) {
					ctx, cancel := context.WithCancel(msg.Context())
					cancel()
					msg.SetContext(ctx)
					return nil, end()
				})
				func() {
					defer func() { _ = recover() }()
					_, _ = h(msg) // what comes of it, other tests say
				}()
				if msg.Context() != base {
					t.Error("the message has another context now")
				}
			})
		}
	}
}

// A subscriber may decode the metadata of a message from JSON null.
func TestMessageWithoutMetadataIsRetriedRequeuedAndPoisoned(t *testing.T) {
	t.Parallel()
	requeued, poisoned := &store{}, &store{}
	h := stack(failing(99).handle,
		middleware.Recover,
		middleware.Correlation(subscription),
		middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: poisoned}),
		middleware.Redelivery(middleware.RedeliveryConfig{Requeuer: requeued, Delays: []time.Duration{0}}),
		middleware.Retry(middleware.RetryConfig{MinDelay: 1, MaxDelay: 1}),
	)
	msg := newMessage(t.Context())
	msg.Metadata = nil
	if _, err := h(msg); err != nil {
		t.Fatal(err)
	}
	equal(t, "requeued", len(requeued.stored()), 1)
	if _, err := h(requeued.stored()[0]); err != nil {
		t.Fatal(err)
	}
	equal(t, "poisoned", len(poisoned.stored()), 1)
}

// It is what the router logs.
func TestInterruptionKeepsItsCause(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	h := stack(func(*message.Message) ([]*message.Message, error) {
		cancel()
		return nil, errBoom
	},
		middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: &store{}}),
		middleware.Redelivery(middleware.RedeliveryConfig{Subscription: subscription, Requeuer: &store{}}))
	_, err := h(newMessage(ctx))
	equal(t, "error", err.Error(), "delivery interrupted: boom")
	wantErrorIs(t, err, middleware.ErrInterrupted)
	wantErrorIs(t, err, errBoom)
}

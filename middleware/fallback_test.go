package middleware_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/middleware"
)

func TestFallbackHandlesWhatTheHandlerCouldNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []error
		handler := failing(9)
		h := stack(handler.handle, middleware.Fallback(middleware.FallbackConfig{Handler: func(_ *message.Message, err error) error {
			told = append(told, err)
			return nil
		}}), middleware.Retry(middleware.RetryConfig{Attempts: 3}))
		_, err := h(newMessage(t.Context()))
		equal(t, "error", err, nil)
		equal(t, "calls of the handler", handler.calls, 3) // outside of Retry it comes last
		equalSlices(t, "told", told, []error{errBoom})
	})
}

func TestFallbackIsNotCalledFor(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(context.Background())
	end()
	for name, tt := range map[string]struct {
		err  error
		ctx  context.Context //nolint:containedctx // of the message
		when bool
	}{
		"success":            {nil, context.Background(), true},
		"Permanent":          {middleware.Permanent(errBoom), context.Background(), true},
		"Discard":            {middleware.Discard(errBoom), context.Background(), true},
		"Defer":              {middleware.Defer(1, errBoom), context.Background(), true},
		"interruption":       {middleware.ErrInterrupted, context.Background(), true},
		"end of the context": {errBoom, ended, true},
		"not yet":            {errBoom, context.Background(), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := middleware.Fallback(middleware.FallbackConfig{
				Handler: func(*message.Message, error) error { t.Error("called"); return nil },
				When:    func(*message.Message, error) bool { return tt.when },
			})(returning(tt.err))(newMessage(tt.ctx))
			equal(t, "error", err, tt.err)
		})
	}
}

func TestFallbackThatFailsLeavesBothErrors(t *testing.T) {
	t.Parallel()
	errSecond := errors.New("second")
	for name, tt := range map[string]struct {
		fallback func() error
		kind     middleware.Kind
		second   error
		text     string
	}{
		"error":     {func() error { return errSecond }, middleware.KindAfter, errSecond, "boom\nfallback: second"}, // the first one's wish stands
		"Permanent": {func() error { return middleware.Permanent(errSecond) }, middleware.KindPermanent, errSecond, "second (fallback of: boom)"},
		"Discard":   {func() error { return middleware.Discard(errSecond) }, middleware.KindDiscard, errSecond, "second (fallback of: boom)"},
		"panic":     {func() error { panic(errSecond) }, middleware.KindAfter, errSecond, "boom\nfallback: panic: second"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := middleware.Fallback(middleware.FallbackConfig{
				Handler: func(*message.Message, error) error { return tt.fallback() },
			})(returning(middleware.RetryAfter(1, errBoom)))(newMessage(t.Context()))
			wantErrorIs(t, err, errBoom)
			wantErrorIs(t, err, tt.second)
			equal(t, "verdict", middleware.VerdictOf(err).Kind, tt.kind)
			equal(t, "text", err.Error(), tt.text)
		})
	}
}

package middleware_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/middleware"
)

// logTo makes Logging to a buffer, without the time of each line.
func logTo(buf *bytes.Buffer, level slog.Level) message.HandlerMiddleware {
	return middleware.Logging(middleware.LoggingConfig{
		Subscription: subscription,
		Logger: slog.New(slog.NewTextHandler(buf, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})),
	})
}

// event is what each line says of the event.
const event = " subscription=shop.send-welcome-email event_type=order.created event_id=event-1 "

func TestLoggingWritesALineForEachStepOfADelivery(t *testing.T) {
	t.Parallel()
	poison := func() message.HandlerMiddleware {
		return middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: &store{}})
	}
	redelivery := func() message.HandlerMiddleware {
		return middleware.Redelivery(middleware.RedeliveryConfig{Subscription: subscription, Requeuer: &store{}, Delays: []time.Duration{time.Minute}})
	}
	for name, tt := range map[string]struct {
		inner   []message.HandlerMiddleware
		handler error
		want    []string
	}{
		"success":                {nil, nil, []string{"level=DEBUG msg=delivery outcome=handled" + event + "attempt=1 duration=1s"}},
		"failure without others": {nil, errBoom, []string{"level=ERROR msg=delivery outcome=failed" + event + "attempt=0 duration=1s error=boom"}},
		"interruption":           {nil, middleware.ErrInterrupted, []string{`level=DEBUG msg=delivery outcome=returned` + event + `attempt=0 duration=1s error="delivery interrupted"`}},
		"poisoned":               {[]message.HandlerMiddleware{poison()}, errBoom, []string{"level=ERROR msg=delivery outcome=poisoned" + event + "attempt=1 duration=1s error=boom"}},
		"discarded":              {[]message.HandlerMiddleware{poison()}, middleware.Discard(errBoom), []string{"level=INFO msg=delivery outcome=discarded" + event + "attempt=0 duration=1s error=boom"}},
		"redelivered":            {[]message.HandlerMiddleware{poison(), redelivery()}, errBoom, []string{"level=WARN msg=delivery outcome=redelivered" + event + "attempt=1 duration=1s error=boom delay=1m0s"}},
		"deferred":               {[]message.HandlerMiddleware{poison(), redelivery()}, middleware.Defer(time.Hour, errBoom), []string{"level=INFO msg=delivery outcome=deferred" + event + "attempt=0 duration=1s error=boom delay=1h0m0s"}},
		"retried": {[]message.HandlerMiddleware{poison(), middleware.Retry(middleware.RetryConfig{Attempts: 2, MinDelay: 1, MaxDelay: 1})}, errBoom, []string{
			"level=DEBUG msg=delivery outcome=retried" + event + "attempt=1 duration=1s error=boom",
			"level=ERROR msg=delivery outcome=poisoned" + event + "attempt=2 duration=2s error=boom",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var buf bytes.Buffer
				h := stack(func(*message.Message) ([]*message.Message, error) {
					time.Sleep(time.Second)
					return nil, tt.handler
				}, append([]message.HandlerMiddleware{logTo(&buf, slog.LevelDebug)}, tt.inner...)...)
				msg := newMessage(t.Context())
				_, _ = h(msg)
				equalSlices(t, "lines", strings.Split(strings.TrimSpace(buf.String()), "\n"), tt.want)
				if strings.Contains(buf.String(), "orderId") {
					t.Error("the payload is logged")
				}
				if msg.Context() != t.Context() {
					t.Error("the message does not have its context back")
				}
			})
		})
	}
}

func TestLoggingTellsADuplicateFromASuccess(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	h := stack(failing(0).handle, logTo(&buf, slog.LevelDebug), memoryDedup(t).wrap)
	for range 2 {
		_, err := h(newMessage(t.Context()))
		equal(t, "error", err, nil)
	}
	equal(t, "handled", strings.Count(buf.String(), "outcome=handled"), 1)
	equal(t, "deduplicated", strings.Count(buf.String(), "outcome=deduplicated"), 1)
}

func TestLoggingTellsWhatMiddlewareOfOnesOwnHasSettled(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	_, err := logTo(&buf, slog.LevelDebug)(func(msg *message.Message) ([]*message.Message, error) {
		middleware.LogOutcome(msg, slog.LevelInfo, "archived", errBoom)
		return nil, nil
	})(newMessage(t.Context()))
	equal(t, "error", err, nil)
	equal(t, "lines", strings.Count(buf.String(), "\n"), 1)
	equal(t, "outcome", strings.Contains(buf.String(), "level=INFO msg=delivery outcome=archived"), true)
	middleware.LogOutcome(newMessage(t.Context()), slog.LevelInfo, "archived", errBoom) // without Logging: nothing
}

func TestLoggingHeedsTheLevel(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	h := logTo(&buf, slog.LevelInfo)
	_, err := h(failing(0).handle)(newMessage(t.Context()))
	equal(t, "error", err, nil)
	equal(t, "lines", buf.String(), "")
}

// Who discards the log does not pay for it.
func TestLoggingWithoutALoggerIsNotThere(t *testing.T) {
	t.Parallel()
	for name, logger := range map[string]*slog.Logger{"nil": nil, "discards": slog.New(slog.DiscardHandler)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen context.Context
			_, err := middleware.Logging(middleware.LoggingConfig{Logger: logger})(func(msg *message.Message) ([]*message.Message, error) {
				seen = msg.Context() //nolint:fatcontext // to compare it with
				return nil, errBoom
			})(newMessage(t.Context()))
			equal(t, "error", err, errBoom)
			equal(t, "context", seen, t.Context())
		})
	}
}

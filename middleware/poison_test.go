package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// poison handles msg under a Poison with a queue that works, and returns what is in it then.
func poison(t *testing.T, h message.HandlerFunc, msg *message.Message) transports.Poisoned {
	t.Helper()
	queue := &store{}
	out, err := middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: queue, Service: "shop", Host: "host-1"})(h)(msg)
	if out != nil || err != nil {
		t.Errorf("%d messages and error %v, want none", len(out), err)
	}
	if len(queue.stored()) != 1 {
		t.Fatalf("%d messages poisoned, want 1", len(queue.stored()))
	}
	equal(t, "subscription", queue.writes[0].subscription, subscription)
	return transports.ReadPoisoned(queue.stored()[0])
}

// returning is a handler that returns err.
func returning(err error) message.HandlerFunc {
	return func(*message.Message) ([]*message.Message, error) { return nil, err }
}

func TestPoisonKeepsTheMessageWithWhatIsKnownOfTheFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		msg := newMessage(t.Context())
		msg.Metadata[transports.HeaderTopic] = "orders"
		first := time.Now().UTC()
		h := middleware.Retry(middleware.RetryConfig{})(returning(fmt.Errorf("charge card: %w", errBoom)))
		got := poison(t, h, msg)

		want := transports.Poisoned{
			Message:      got.Message,
			Reason:       "charge card: boom",
			ErrorType:    "*errors.errorString",
			Attempts:     3,
			FirstFailure: first,
			LastFailure:  time.Now().UTC(),
			Subscription: subscription,
			Topic:        "orders",
			Service:      "shop",
			Host:         "host-1",
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(transports.Poisoned{}, "Message")); diff != "" {
			t.Errorf("poisoned (-want +got):\n%s", diff)
		}
		equal(t, "id", got.Message.UUID, "event-1")
		equal(t, "payload", string(got.Message.Payload), `{"orderId":1}`)
		equal(t, "source", got.Message.Metadata["ce_source"], "shop")
		equal(t, "reason on the original, which may go back", msg.Metadata[transports.HeaderPoisonReason], "")
	})
}

func TestPoisonPassesSuccessOn(t *testing.T) {
	t.Parallel()
	want := []*message.Message{newMessage(t.Context())}
	h := middleware.Poison(middleware.PoisonConfig{Queue: &store{}})(func(*message.Message) ([]*message.Message, error) { return want, nil })
	out, err := h(newMessage(t.Context()))
	equal(t, "error", err, nil)
	equalSlices(t, "messages", out, want)
}

func TestPoisonCountsTheCallThatNobodyElseHasCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		got := poison(t, returning(errBoom), newMessage(t.Context()))
		equal(t, "attempts", got.Attempts, 1)
		equal(t, "first failure", got.FirstFailure, time.Now().UTC())

		got = poison(t, stack(returning(errBoom), middleware.Redelivery(middleware.RedeliveryConfig{Requeuer: &store{}})), newMessage(t.Context()))
		equal(t, "attempts with Redelivery", got.Attempts, 1)
	})
}

// A shutdown is not a failure: what it interrupts goes back.
func TestPoisonPoisonsNothingThatWasInterrupted(t *testing.T) {
	t.Parallel()
	for name, handlerErr := range map[string]error{
		"error":     errBoom,
		"permanent": middleware.Permanent(errBoom),
		"discard":   middleware.Discard(errBoom),
		"defer":     middleware.Defer(time.Hour, errBoom),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			queue := &store{}
			h := middleware.Poison(middleware.PoisonConfig{Queue: queue, OnDiscard: func(*message.Message, error) { t.Error("it is discarded") }})(
				func(*message.Message) ([]*message.Message, error) {
					cancel()
					return nil, handlerErr
				})
			_, err := h(newMessage(ctx))
			wantErrorIs(t, err, middleware.ErrInterrupted)
			wantErrorIs(t, err, errBoom)
			equal(t, "writes", len(queue.writes), 0)
		})
	}
}

func TestPoisonAcknowledgesWhatIsDiscarded(t *testing.T) {
	t.Parallel()
	queue := &store{}
	var discarded error
	h := middleware.Poison(middleware.PoisonConfig{Queue: queue, OnDiscard: func(_ *message.Message, err error) { discarded = err }})(
		func(*message.Message) ([]*message.Message, error) {
			return []*message.Message{newMessage(t.Context())}, middleware.Discard(errBoom)
		})
	out, err := h(newMessage(t.Context()))
	equal(t, "error", err, nil)
	equal(t, "messages", len(out), 0)
	wantErrorIs(t, discarded, errBoom)
	equal(t, "writes", len(queue.writes), 0)

	_, err = middleware.Poison(middleware.PoisonConfig{Queue: queue})(returning(middleware.Discard(errBoom)))(newMessage(t.Context()))
	equal(t, "error without OnDiscard", err, nil)
}

// Without Redelivery, a busy copy or an outage of the deduplication store would
// otherwise poison what nobody has tried.
func TestPoisonWithoutRedeliveryLetsDeferredMessagesGoBackAfterTheirTime(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stop time.Duration
		want time.Duration
	}{
		"in time":  {time.Hour, 2 * time.Second},
		"shutdown": {time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				queue := &store{}
				s := newLeases(time.Minute)
				s.fail("claim", errBoom)
				stopping := make(chan struct{})
				time.AfterFunc(tt.stop, func() { close(stopping) })
				h := stack(failing(0).handle,
					middleware.Poison(middleware.PoisonConfig{Queue: queue, Stopping: stopping}),
					middleware.Dedup(middleware.DedupConfig{Subscription: subscription, Store: s}))
				start := time.Now()
				_, err := h(newMessage(t.Context()))
				wantErrorIs(t, err, middleware.ErrInterrupted)
				equal(t, "waited", time.Since(start), tt.want)
				equal(t, "writes", len(queue.writes), 0)
			})
		})
	}
}

func TestPoisonTellsTheTypeOfTheInnermostError(t *testing.T) {
	t.Parallel()
	cause := &fragileError{inner: nil}
	tests := map[string]struct {
		err  error
		want string
	}{
		"plain":           {errBoom, "*errors.errorString"},
		"wrapped":         {fmt.Errorf("a: %w", fmt.Errorf("b: %w", context.DeadlineExceeded)), "context.deadlineExceededError"},
		"joined":          {errors.Join(context.Canceled, &middleware.PanicError{}), "*errors.errorString"},
		"verdict":         {middleware.Permanent(&middleware.TimeoutError{}), "*middleware.TimeoutError"},
		"bare verdict":    {middleware.Permanent(nil), "*middleware.verdictError"},
		"panic":           {&middleware.PanicError{Value: "boom"}, "*middleware.PanicError"},
		"panic, an error": {&middleware.PanicError{Value: context.DeadlineExceeded}, "context.deadlineExceededError"},
		"wraps nothing":   {emptyError{}, "middleware_test.emptyError"},
		"not to be asked": {cause, "*middleware_test.fragileError"}, // its Error panics
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			equal(t, "type", poison(t, returning(tt.err), newMessage(t.Context())).ErrorType, tt.want)
		})
	}
}

type emptyError struct{}

func (emptyError) Error() string   { return "empty" }
func (emptyError) Unwrap() []error { return nil }

func TestPoisonKeepsTheStackOfAPanic(t *testing.T) {
	t.Parallel()
	got := poison(t, stack(func(*message.Message) ([]*message.Message, error) { panic(errBoom) }, middleware.Recover), newMessage(t.Context()))
	equal(t, "reason", got.Reason, "panic: boom")
	if !strings.Contains(got.Stack, "TestPoisonKeepsTheStackOfAPanic") {
		t.Errorf("stack:\n%s", got.Stack)
	}
}

func TestPoisonBoundsWhatItSaysOfTheFailure(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"long":               strings.Repeat("x", 10_000),
		"long, not ASCII":    strings.Repeat("é", 10_000),
		"long, not ASCII, 2": "x" + strings.Repeat("語", 10_000),
		"not UTF-8":          strings.Repeat("a\xff", 3_000),
		"at the limit":       strings.Repeat("x", 4096),
		"beyond the limit":   strings.Repeat("x", 4097),
		"short":              "x",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := poison(t, returning(&middleware.PanicError{Value: text, Stack: []byte(text + string(debug.Stack()))}), newMessage(t.Context()))
			for what, s := range map[string]struct {
				text  string
				limit int
			}{"reason": {got.Reason, 4 << 10}, "stack": {got.Stack, 8 << 10}} {
				if len(s.text) > s.limit || !utf8.ValidString(s.text) {
					t.Errorf("%s: %d bytes, valid: %v", what, len(s.text), utf8.ValidString(s.text))
				}
			}
			full := "panic: " + strings.ToValidUTF8(text, "\uFFFD")
			if len(full) <= 4<<10 {
				equal(t, "reason", got.Reason, full)
			} else if kept, cut := strings.CutSuffix(got.Reason, "…"); !cut || !strings.HasPrefix(full, kept) || len(got.Reason) < 4<<10-4 {
				t.Errorf("reason of %d bytes ends in %q", len(got.Reason), got.Reason[len(got.Reason)-5:])
			}
		})
	}
}

func TestPoisonGivesAMessageWithoutAnIDOne(t *testing.T) {
	t.Parallel()
	msg := newMessage(t.Context())
	msg.UUID = ""
	if got := poison(t, returning(errBoom), msg); got.Message.UUID == "" {
		t.Error("the operator can't name it")
	}
	equal(t, "id of the original", msg.UUID, "")
}

// Discarding its text is better than to fail at it for ever.
func TestPoisonSurvivesAnErrorThatPanics(t *testing.T) {
	t.Parallel()
	var broken *fragileError
	h := stack(returning(broken), middleware.Recover)
	if got := poison(t, h, newMessage(t.Context())); !strings.Contains(got.Reason, "nil pointer") {
		t.Errorf("reason: %q", got.Reason)
	}
}

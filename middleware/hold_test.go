package middleware_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/bulkhead"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// Brokers take back what is not settled in time.
func TestWhatIsHeldForTooLongGoesBackUncounted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		holds   func() message.HandlerMiddleware
		handler error
	}{
		"gate": {func() message.HandlerMiddleware {
			var gate middleware.Gate
			gate.Hold("paused")
			return gate.Middleware(nil)
		}, nil},
		"bulkhead": {func() message.HandlerMiddleware {
			full := bulkhead.New[any](1)
			full.TryAcquirePermit()
			return middleware.Bulkhead(full)
		}, nil},
		"poison queue that can't be written": {func() message.HandlerMiddleware {
			return middleware.Poison(middleware.PoisonConfig{Queue: &store{err: transports.ErrPoisonQueueFull, failures: 999}})
		}, middleware.Permanent(errBoom)},
		"requeue that can't be written": {func() message.HandlerMiddleware {
			return middleware.Redelivery(middleware.RedeliveryConfig{Requeuer: &store{err: errBoom, failures: 999}, Delays: []time.Duration{0}})
		}, errBoom},
		"redelivery in place": {func() message.HandlerMiddleware {
			return middleware.Redelivery(middleware.RedeliveryConfig{Delays: []time.Duration{time.Hour}})
		}, errBoom},
		"deferral in place": {func() message.HandlerMiddleware {
			return middleware.Redelivery(middleware.RedeliveryConfig{})
		}, middleware.Defer(time.Minute, errBoom)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				h := stack(func(*message.Message) ([]*message.Message, error) { return nil, tt.handler },
					middleware.HoldLimit(15*time.Minute), tt.holds())
				done := deliver(h, newMessage(t.Context()))
				time.Sleep(15*time.Minute - 1)
				select {
				case err := <-done:
					t.Fatalf("it was given up before, with error %v", err)
				default:
				}
				wantErrorIs(t, <-done, middleware.ErrInterrupted)
				if took := time.Since(start); took > 15*time.Minute+30*time.Second {
					t.Errorf("it was held for %v", took)
				}
			})
		})
	}
}

func TestHoldLimitDoesNotInterruptAHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		msg := newMessage(t.Context())
		_, err := middleware.HoldLimit(time.Minute)(func(msg *message.Message) ([]*message.Message, error) {
			time.Sleep(time.Hour)
			return nil, msg.Context().Err()
		})(msg)
		equal(t, "error", err, nil)
		equal(t, "limit is gone from the context", msg.Context().Value(middleware.HoldLimitKey{}), nil)
	})
}

// A write that hangs would outlast the shutdown, and one that takes its time must not be
// lost to it.
func TestWriteHasAGraceAfterTheEndOfTheDelivery(t *testing.T) {
	t.Parallel()
	errHangs := errors.New("hangs")
	for name, tt := range map[string]struct {
		takes time.Duration
		err   error
		took  time.Duration
	}{
		"slow":  {2 * time.Second, nil, 2 * time.Second},
		"hangs": {time.Hour, middleware.ErrInterrupted, 3 * time.Second},
	} {
		write := func(ctx context.Context) error {
			select {
			case <-time.After(tt.takes):
				return nil
			case <-ctx.Done():
				return errHangs
			}
		}
		t.Run(name+", poison", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				queue := poisonFunc(func(ctx context.Context) error {
					cancel()
					return write(ctx)
				})
				start := time.Now()
				_, err := middleware.Poison(middleware.PoisonConfig{Queue: queue})(returning(errBoom))(newMessage(ctx))
				equal(t, "interrupted", errors.Is(err, middleware.ErrInterrupted), tt.err != nil)
				equal(t, "took", time.Since(start), tt.took)
			})
		})
		t.Run(name+", mark of a handled event", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				slow := &slowStore{leases: newLeases(time.Minute), write: write}
				var told error
				start := time.Now()
				_, err := middleware.Dedup(middleware.DedupConfig{Store: slow, OnStoreError: func(err error) { told = err }})(
					func(*message.Message) ([]*message.Message, error) {
						cancel()
						return nil, nil
					})(newMessage(ctx))
				equal(t, "error", err, nil)
				equal(t, "marked", told == nil, tt.err == nil)
				equal(t, "took", time.Since(start), tt.took)
			})
		})
	}
}

// slowStore takes its time to mark an event as done.
type slowStore struct {
	*leases
	write func(context.Context) error
}

func (s *slowStore) Complete(ctx context.Context, key middleware.DedupKey, token uint64) error {
	if err := s.write(ctx); err != nil {
		return err
	}
	return s.leases.Complete(ctx, key, token)
}

package middleware_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// writer is a middleware that puts failed messages into a store.
type writer struct {
	store    *store
	gate     middleware.Gate
	stopping chan struct{}
	errors   int // that OnWriteError was told
	written  int // that OnPoison or OnRedelivery was told
}

func (w *writer) poison() message.HandlerMiddleware {
	return middleware.Poison(middleware.PoisonConfig{
		Subscription: subscription, Queue: w.store, Gate: &w.gate, Stopping: w.stopping,
		OnPoison:     func(*message.Message, error) { w.written++ },
		OnWriteError: func(error) { w.errors++ },
	})
}

func (w *writer) redelivery() message.HandlerMiddleware {
	return middleware.Redelivery(middleware.RedeliveryConfig{
		Subscription: subscription, Requeuer: w.store, Delays: []time.Duration{0}, Stopping: w.stopping,
		OnRedelivery: func(*message.Message, error, time.Duration, bool) { w.written++ },
		OnWriteError: func(error) { w.errors++ },
	})
}

// writers are both: neither may lose a message.
var writers = map[string]func(*writer) message.HandlerMiddleware{
	"poison":     (*writer).poison,
	"redelivery": (*writer).redelivery,
}

func newWriter(s *store) *writer { return &writer{store: s, stopping: make(chan struct{})} }

func TestWriteIsTriedAgainWithBackOffUntilItSucceeds(t *testing.T) {
	t.Parallel()
	for name, build := range writers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWriter(&store{err: errBoom, failures: 11})
				h := build(w)(returning(errBoom))
				msg := newMessage(t.Context())
				done := deliver(h, msg)
				time.Sleep(time.Minute)
				select {
				case err := <-done:
					t.Fatalf("the message is given up, with error %v", err)
				default: // unsettled, as it must be
				}
				equal(t, "error", <-done, nil)
				var millis []int64
				for _, at := range w.store.times() {
					millis = append(millis, at.Milliseconds())
				}
				equalSlices(t, "times of writing", millis, []int64{
					0, 100, 300, 700, 1_500, 3_100, 6_300, 12_700, 25_500,
					25_500 + 25_600, 51_100 + 30_000, 81_100 + 30_000, // no longer than half a minute between two
				})
				equal(t, "stored", len(w.store.stored()), 1)
				equal(t, "errors told", w.errors, 11)
				equal(t, "writes told", w.written, 1)
			})
		})
	}
}

func TestPoisonHoldsTheGateWhileItsQueueCannotBeWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var gate middleware.Gate
		queue := &store{err: errBoom, failures: 3} // written after 700 ms
		h := stack(returning(errBoom), gate.Middleware(nil),
			middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: queue, Gate: &gate}))
		first := deliver(h, newMessage(t.Context()))
		synctest.Wait()
		equalSlices(t, "reasons", gate.Reasons(), []string{"the poison queue can't be written"})
		second := deliver(h, newMessage(t.Context()))
		time.Sleep(699 * time.Millisecond)
		equal(t, "stored", len(queue.stored()), 0)
		equal(t, "reasons", len(gate.Reasons()), 1)
		equal(t, "first", <-first, nil)
		equal(t, "second, which is held back", <-second, nil)
		equal(t, "reasons", len(gate.Reasons()), 0)
		equalSlices(t, "times of writing", queue.times()[3:], []time.Duration{700 * time.Millisecond, 700 * time.Millisecond})
	})
}

func TestWriteIsGivenUpAtShutdown(t *testing.T) {
	t.Parallel()
	for reason, stop := range map[string]func(w *writer, cancel context.CancelFunc){
		"stopping":           func(w *writer, _ context.CancelFunc) { close(w.stopping) },
		"end of the context": func(_ *writer, cancel context.CancelFunc) { cancel() },
	} {
		for name, build := range writers {
			t.Run(name+", "+reason, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWriter(&store{err: transports.ErrPoisonQueueFull, failures: 1000})
					h := build(w)(returning(errBoom))
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					done := deliver(h, newMessage(ctx))
					time.Sleep(time.Hour)
					stop(w, cancel)
					synctest.Wait()
					select {
					case err := <-done:
						wantErrorIs(t, err, middleware.ErrInterrupted)
						wantErrorIs(t, err, transports.ErrPoisonQueueFull)
					default:
						t.Fatal("it waits on")
					}
					equal(t, "reasons", len(w.gate.Reasons()), 0)
					equal(t, "writes told", w.written, 0)
				})
			})
		}
	}
}

// The message goes back, to a subscription that is gone or, when only its name was
// wrong, to the same handler: not without a pause.
func TestWriteIsGivenUpWhenThereIsNoSuchSubscription(t *testing.T) {
	t.Parallel()
	for name, build := range writers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWriter(&store{err: fmt.Errorf("memory: %w", transports.ErrNoSubscription), failures: 1})
				h := build(w)(returning(errBoom))
				start := time.Now()
				_, err := h(newMessage(t.Context()))
				wantErrorIs(t, err, middleware.ErrInterrupted)
				wantErrorIs(t, err, transports.ErrNoSubscription)
				equal(t, "waited", time.Since(start), time.Second)
				equal(t, "errors told", w.errors, 1)
				equal(t, "writes", len(w.store.writes), 1)
				equal(t, "reasons", len(w.gate.Reasons()), 0)
			})
		})
	}
}

func TestPoisoningThatHangsIsCutOffAndTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWriter(&store{failures: 2, hang: true})
		h := w.poison()(returning(errBoom))
		_, err := h(newMessage(t.Context()))
		equal(t, "error", err, nil)
		equalSlices(t, "times of writing", w.store.times(), []time.Duration{0, 30_100 * time.Millisecond, 60_300 * time.Millisecond})
	})
}

// A handler that would succeed by now is not kept from its message by a delay that can't
// be had.
func TestRedeliveryThatHangsGivesTheMessageBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWriter(&store{failures: 2, hang: true})
		h := w.redelivery()(returning(errBoom))
		start := time.Now()
		_, err := h(newMessage(t.Context()))
		wantErrorIs(t, err, middleware.ErrInterrupted)
		wantErrorIs(t, err, context.DeadlineExceeded)
		equal(t, "waited", time.Since(start), 30*time.Second)
		equal(t, "errors told", w.errors, 1)
		equal(t, "writes told", w.written, 0)
	})
}

func TestWriteUnderWayAtShutdownIsFinished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		stored := false
		queue := poisonFunc(func(ctx context.Context) error {
			cancel()
			time.Sleep(time.Second)
			stored = ctx.Err() == nil
			return ctx.Err()
		})
		_, err := middleware.Poison(middleware.PoisonConfig{Queue: queue})(returning(errBoom))(newMessage(ctx))
		equal(t, "error", err, nil)
		equal(t, "stored", stored, true)
	})
}

type poisonFunc func(ctx context.Context) error

func (f poisonFunc) Poison(ctx context.Context, _ string, _ *message.Message) error { return f(ctx) }

package middleware_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/bulkhead"

	"github.com/gotidings/tidings/middleware"
)

func TestBulkheadLetsSoManyHandleAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards running and most
		running, most := 0, 0
		h := middleware.Bulkhead(bulkhead.New[any](2))(func(*message.Message) ([]*message.Message, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return nil, nil
		})
		start := time.Now()
		var all []<-chan error
		for range 6 {
			all = append(all, deliver(h, newMessage(t.Context())))
		}
		for _, done := range all {
			equal(t, "error", <-done, nil)
		}
		equal(t, "most at a time", most, 2)
		equal(t, "took", time.Since(start), 3*time.Second)
	})
}

func TestBulkheadTakesTheEndOfTheContextForAnInterruption(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New[any](1)
		if !b.TryAcquirePermit() {
			t.Fatal("no permit")
		}
		ctx, cancel := context.WithCancel(t.Context())
		handler := failing(0)
		msg := newMessage(ctx)
		done := deliver(stack(handler.handle, middleware.Retry(middleware.RetryConfig{}), middleware.Bulkhead(b)), msg)
		synctest.Wait()
		cancel()
		err := <-done
		wantErrorIs(t, err, middleware.ErrInterrupted)
		wantErrorIs(t, err, context.Canceled)
		equal(t, "calls", handler.calls, 0)
		wantHeader(t, msg, "tidings_attempts", "")
		b.ReleasePermit()
	})
}

func TestBulkheadHasItsPermitBackHoweverTheHandlerEnds(t *testing.T) {
	t.Parallel()
	b := bulkhead.New[any](1)
	for name, end := range map[string]func() error{
		"error":  func() error { return errBoom },
		"panic":  func() error { panic("boom") },
		"Goexit": func() error { runtime.Goexit(); return nil },
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() { _ = recover() }()
			_, _ = middleware.Bulkhead(b)(func(*message.Message) ([]*message.Message, error) { return nil, end() })(newMessage(t.Context()))
		}()
		<-done
		if !b.TryAcquirePermit() {
			t.Fatalf("%s: the permit is gone", name)
		}
		b.ReleasePermit()
	}
}

func TestBulkheadIsFreeWhileAFailedMessageWaitsForItsRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New[any](1)
		free := false
		h := stack(failing(1).handle, middleware.Retry(middleware.RetryConfig{OnRetry: func(*message.Message, error, int) {
			if free = b.TryAcquirePermit(); free {
				b.ReleasePermit()
			}
		}}), middleware.Bulkhead(b))
		_, err := h(newMessage(t.Context()))
		equal(t, "error", err, nil)
		equal(t, "free", free, true)
	})
}

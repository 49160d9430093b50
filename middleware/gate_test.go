package middleware_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/gotidings/tidings/middleware"
)

func TestGateHoldsMessagesBackUntilEverybodyHasReleasedIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var gate middleware.Gate
		handler := failing(0)
		h := gate.Middleware(nil)(handler.handle)
		operator, circuit := gate.Hold("paused"), gate.Hold("circuit is open")
		again := gate.Hold("paused")
		msg := newMessage(t.Context())
		done := deliver(h, msg)

		equalSlices(t, "reasons", gate.Reasons(), []string{"paused", "circuit is open"})
		for _, release := range []func(){operator, operator, again} { // one of them twice
			release()
			synctest.Wait()
			equal(t, "calls", handler.calls, 0)
		}
		equalSlices(t, "reasons", gate.Reasons(), []string{"circuit is open"})
		circuit()
		equal(t, "error", <-done, nil)
		equal(t, "calls", handler.calls, 1)
		equal(t, "reasons", len(gate.Reasons()), 0)

		circuit() // late
		if _, err := h(newMessage(t.Context())); err != nil {
			t.Error(err)
		}
		equal(t, "attempts header", msg.Metadata["tidings_attempts"], "")
	})
}

func TestGateSendsMessagesBackThatItCannotHoldAnyLonger(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(stopping chan struct{}, cancel context.CancelFunc){
		"shutdown":           func(stopping chan struct{}, _ context.CancelFunc) { close(stopping) },
		"end of the context": func(_ chan struct{}, cancel context.CancelFunc) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var gate middleware.Gate
				handler := failing(0)
				stopping := make(chan struct{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				gate.Hold("paused")
				done := deliver(gate.Middleware(stopping)(handler.handle), newMessage(ctx))
				synctest.Wait()
				stop(stopping, cancel)
				wantErrorIs(t, <-done, middleware.ErrInterrupted)
				equal(t, "calls", handler.calls, 0)
			})
		})
	}
}

func TestGateThatIsOpenLetsMessagesFinishAtShutdown(t *testing.T) {
	t.Parallel()
	var gate middleware.Gate
	stopping := make(chan struct{})
	close(stopping)
	_, err := gate.Middleware(stopping)(failing(0).handle)(newMessage(t.Context()))
	equal(t, "error", err, nil)
}

func TestGateCanBeHeldAndReleasedConcurrently(t *testing.T) {
	t.Parallel()
	var gate middleware.Gate
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			release := gate.Hold("x")
			gate.Reasons()
			release()
			release()
		})
		wg.Go(func() {
			_, err := gate.Middleware(nil)(failing(0).handle)(newMessage(t.Context()))
			equal(t, "error", err, nil)
		})
	}
	wg.Wait()
	equal(t, "reasons", len(gate.Reasons()), 0)
}

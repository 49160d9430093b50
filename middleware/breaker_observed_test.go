package middleware_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// client is a client of a dependency, guarded by the same breaker as the handler.
func client(cb circuitbreaker.CircuitBreaker[any], d *dependency) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		if !cb.TryAcquirePermit() {
			return nil, fmt.Errorf("call: %w", circuitbreaker.ErrOpen)
		}
		_, err := d.handle(msg)
		if err != nil {
			cb.RecordFailure()
			return nil, fmt.Errorf("call: %w", err)
		}
		cb.RecordSuccess()
		return nil, nil
	}
}

func TestObservedCircuitIsFedByTheClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(func(b circuitbreaker.Builder[any]) { b.WithFailureThreshold(2).WithSuccessThreshold(1) })
		c.cfg.Observed = true
		d := &dependency{err: errBoom}
		h := c.around(client(c.breaker, d))
		for i := range 2 { // recorded once each
			equal(t, "state", c.breaker.State(), circuitbreaker.ClosedState)
			_, err := h(numbered(t.Context(), i))
			wantErrorIs(t, err, errBoom)
			equal(t, "verdict", middleware.VerdictOf(err).Kind, middleware.KindRetry)
		}
		equal(t, "state", c.breaker.State(), circuitbreaker.OpenState)
		equalSlices(t, "reasons", c.gate.Reasons(), []string{"circuit is open"})
		_, err := h(numbered(t.Context(), 2)) // is held until it is time, and is a trial
		equal(t, "verdict of a trial", middleware.VerdictOf(err).Kind, middleware.KindDefer)
		equal(t, "calls", len(d.calls()), 3)
		d.set(nil)
		_, err = h(numbered(t.Context(), 3))
		equal(t, "error", err, nil)
		equal(t, "state", c.breaker.State(), circuitbreaker.ClosedState)
		equal(t, "reasons", len(c.gate.Reasons()), 0)
	})
}

// Its client opened the circuit for another one, before it came to call.
func TestObservedCircuitDoesNotCountAClientWithoutAPermit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(nil)
		c.cfg.Observed = true
		d := &dependency{}
		begun := make(chan struct{})
		proceed := make(chan struct{})
		first := true
		h := c.around(func(msg *message.Message) ([]*message.Message, error) {
			if first {
				first = false
				close(begun)
				<-proceed
			}
			return client(c.breaker, d)(msg)
		}, middleware.Retry(middleware.RetryConfig{}))
		msg := newMessage(t.Context())
		done := deliver(h, msg)
		<-begun
		c.breaker.Open()
		close(proceed)
		synctest.Wait()
		equal(t, "calls", len(d.calls()), 0)
		equal(t, "error", <-done, nil)
		equal(t, "calls", len(d.calls()), 1)
		wantHeader(t, msg, transports.HeaderAttempts, "")
	})
}

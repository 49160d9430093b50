package middleware

import (
	"context"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go"
)

// policyDelay is how long a message is put off that a policy has refused.
const policyDelay = time.Second

// Policies puts policies of failsafe-go around the handler, the first one outermost. The
// same policy object can guard an HTTP client, by failsafehttp, or a gRPC client, by
// failsafegrpc, with failsafe.WithAny.
//
// A message that a policy refuses before the handler was called, by a limit for example,
// has not been tried: it is put off and comes back, uncounted, [Defer]. The handler's
// context is that of the execution, so a timeout ends it; a handler that returns nil has
// succeeded, however late. [Permanent], [Discard] and [Defer] are the handler's own
// decision; policies take them for a success, and they are passed on.
//
// For a circuit breaker there is [CircuitBreaker], which pauses the subscription, and for
// a rate limiter [RateLimit], which waits. Hedges are not made: they would handle the
// message twice at a time.
func Policies(policies ...failsafe.Policy[any]) message.HandlerMiddleware {
	executor := failsafe.With(policies...)
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			base := msg.Context()
			defer msg.SetContext(base)
			var (
				out   []*message.Message
				err   error // of the handler's last call
				calls int
			)
			execErr := executor.WithContext(base).RunWithExecution(func(exec failsafe.Execution[any]) error {
				if exec.IsHedge() {
					<-exec.Canceled() // by the end of the first call
					return context.Cause(exec.Context())
				}
				calls++
				msg.SetContext(exec.Context())
				out, err = h(msg)
				msg.SetContext(base)
				if err != nil && neutral(msg, err) {
					return nil
				}
				return err
			})
			switch {
			case calls == 0 && execErr != nil && base.Err() == nil:
				return nil, Defer(policyDelay, fmt.Errorf("not tried: %w", execErr))
			case calls > 0 && (err == nil || neutral(msg, err)):
				return out, err
			default: // the handler failed, and a policy may have mended it
				return nil, execErr
			}
		}
	}
}

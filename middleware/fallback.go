package middleware

import (
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
)

// FallbackConfig configures [Fallback].
type FallbackConfig struct {
	// Handler is called with the message and the error of the handler that failed. nil
	// means that the message is handled now. Any other error is joined to the first one.
	// Required.
	Handler func(msg *message.Message, err error) error

	// When, if set, says whether it is time for the fallback. nil means always.
	When func(msg *message.Message, err error) bool
}

// Fallback does something else when the handler fails: another provider, a note for
// somebody to look at. Its place decides when: outside of [Retry] when the quick tries
// are used up, inside of it at each failure. It belongs inside of [Dedup], so that what
// the fallback has handled is marked as done.
//
// An interruption is no failure, and [Permanent], [Discard] and [Defer] are the handler's
// own decision: they are passed on. A panic of the handler is a failure where a [Recover]
// is inside; one of the fallback is its error. The fallback of failsafe-go works as well, with [Policies]; this one
// has the message.
func Fallback(cfg FallbackConfig) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			out, err := call(h, msg)
			if err == nil || neutral(msg, err) || cfg.When != nil && !cfg.When(msg, err) {
				return out, err
			}
			_, second := Recover(func(msg *message.Message) ([]*message.Message, error) {
				return nil, cfg.Handler(msg, err)
			})(msg)
			if second == nil {
				return nil, nil
			}
			if neutral(msg, second) { // the fallback has a verdict, or was interrupted
				return nil, fmt.Errorf("%w (fallback of: %w)", second, err)
			}
			return nil, errors.Join(err, fmt.Errorf("fallback: %w", second))
		}
	}
}

package middleware

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// TimeoutError is the error of a handler that failed after its time was over,
// and the cause of its context's end.
type TimeoutError struct {
	After time.Duration
	Err   error // what the handler returned; nil in a cause
}

func (e *TimeoutError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("handler timed out after %v", e.After)
	}
	return fmt.Sprintf("handler timed out after %v: %v", e.After, e.Err)
}

func (e *TimeoutError) Unwrap() error { return e.Err }

// Timeout ends the handler's context after d. The handler is waited for all the
// same: one that does not heed its context takes the time that it takes. One
// that returns nil has succeeded, however late. The message has its own context
// back when the handler has returned.
func Timeout(d time.Duration) message.HandlerMiddleware {
	cause := &TimeoutError{After: d}
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			outer := msg.Context()
			ctx, cancel := context.WithTimeoutCause(outer, d, cause)
			defer cancel()
			defer msg.SetContext(outer)
			msg.SetContext(ctx)

			out, err := h(msg)
			if err != nil && outer.Err() == nil && errors.Is(context.Cause(ctx), cause) {
				return nil, &TimeoutError{After: d, Err: err}
			}
			return out, err
		}
	}
}

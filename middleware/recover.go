package middleware

import (
	"fmt"
	"runtime/debug"

	"github.com/ThreeDotsLabs/watermill/message"
)

// PanicError is a panic that [Recover] turned into an error.
type PanicError struct {
	Value any    // what panic was called with
	Stack []byte // of the goroutine that panicked
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Recover turns a panic of the handler into a [*PanicError], which is then an
// error as any other: the retry policy applies. A handler that ends its goroutine
// by runtime.Goexit, as testing.T.FailNow does, leaves no error to return; its
// message is nacked, since the router would never settle it.
func Recover(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (out []*message.Message, err error) {
		returned := false
		defer func() {
			if returned {
				return
			}
			if value := recover(); value != nil {
				out, err = nil, &PanicError{Value: value, Stack: debug.Stack()}
				return
			}
			msg.Nack()
		}()
		out, err = h(msg)
		returned = true
		return out, err
	}
}

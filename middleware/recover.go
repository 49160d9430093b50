package middleware

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// goexitHold is how long a message is held whose handler has ended its goroutine.
const goexitHold = time.Second

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
// error as any other: the retry policy applies. So does one of the error that the
// handler returned, when it is a nil pointer. A handler that ends its goroutine
// by runtime.Goexit, as testing.T.FailNow does, leaves no error to return; its
// message is nacked, since the router would never settle it.
func Recover(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (out []*message.Message, err error) {
		returned := false
		defer func() {
			if returned {
				return
			}
			value := recover()
			out, err = nil, &PanicError{Value: value, Stack: debug.Stack()}
			if value == nil { // Goexit; or panic(nil) under GODEBUG=panicnil=1, and then err matters
				pause(msg, goexitHold, nil) // it would come again at once
				msg.Nack()
			}
		}()
		out, err = h(msg)
		if err != nil {
			// A nil pointer in err, of the handler's error type, panics when it is
			// asked anything. Better here than in the middleware further out.
			_ = err.Error()
			_ = errors.Is(err, ErrInterrupted)
		}
		returned = true
		return out, err
	}
}

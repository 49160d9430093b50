package middleware_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/middleware"
)

func TestRecoverMakesAPanicAnErrorWithItsStack(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		value any
		text  string
	}{
		"text":  {"boom", "panic: boom"},
		"error": {errBoom, "panic: boom"},
		"nil":   {nil, "panic: " + new(runtime.PanicNilError).Error()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			msg := newMessage(t.Context())
			out, err := middleware.Recover(func(*message.Message) ([]*message.Message, error) {
				panic(tt.value)
			})(msg)
			panicked, ok := errors.AsType[*middleware.PanicError](err)
			if !ok || out != nil {
				t.Fatalf("%d messages and error %v, want a PanicError", len(out), err)
			}
			equal(t, "text", err.Error(), tt.text)
			if !strings.Contains(string(panicked.Stack), "TestRecoverMakesAPanicAnErrorWithItsStack") {
				t.Errorf("the stack is not that of the handler:\n%s", panicked.Stack)
			}
			if tt.value != nil {
				equal(t, "value", panicked.Value, tt.value)
			}
			if e, ok := tt.value.(error); ok {
				wantErrorIs(t, err, e)
			}
			if nacked(msg) {
				t.Error("the message is nacked, which is the router's business")
			}
		})
	}
}

func TestRecoverPassesOnWhatTheHandlerReturns(t *testing.T) {
	t.Parallel()
	want := []*message.Message{newMessage(t.Context())}
	out, err := middleware.Recover(func(*message.Message) ([]*message.Message, error) { return want, errBoom })(newMessage(t.Context()))
	equal(t, "error", err, errBoom)
	equalSlices(t, "messages", out, want)
}

// A handler that fails a test, or calls runtime.Goexit otherwise, never returns:
// without a nack its message would be unsettled for good.
func TestRecoverNacksTheMessageOfAHandlerThatEndsItsGoroutine(t *testing.T) {
	t.Parallel()
	msg := newMessage(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = middleware.Recover(func(*message.Message) ([]*message.Message, error) {
			runtime.Goexit()
			return nil, nil
		})(msg)
		t.Error("the goroutine goes on")
	}()
	<-done
	if !nacked(msg) {
		t.Error("the message is not nacked")
	}
}

func TestRecoverTakesANilPanicForNoSuccess(t *testing.T) {
	t.Setenv("GODEBUG", "panicnil=1") // recover returns nil then
	msg := newMessage(t.Context())
	_, err := middleware.Recover(func(*message.Message) ([]*message.Message, error) {
		panic(nil) //nolint:govet // that is the case
	})(msg)
	if err == nil {
		t.Error("no error: the message would be acknowledged")
	}
}

type fragileError struct{ inner error }

func (e *fragileError) Error() string { return e.inner.Error() }

type fragileWrapperError struct{ inner error }

func (e *fragileWrapperError) Error() string { return "fragile" }
func (e *fragileWrapperError) Unwrap() error { return e.inner }

// A nil *fragileError returned as an error is not nil, and panics when asked.
func TestRecoverTakesAnErrorThatPanicsForAPanic(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{"Error": (*fragileError)(nil), "Unwrap": (*fragileWrapperError)(nil)} {
		_, got := middleware.Recover(returning(err))(newMessage(t.Context()))
		if _, ok := got.(*middleware.PanicError); !ok { //nolint:errorlint // errors.As would panic
			t.Errorf("%s: error of type %T, want a PanicError", name, got)
		}
	}
}

func nacked(msg *message.Message) bool {
	select {
	case <-msg.Nacked():
		return true
	default:
		return false
	}
}

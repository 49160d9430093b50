package middleware

import (
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Kind is what is to become of a delivery whose handler returned an error.
type Kind int

// The kinds of verdict.
const (
	KindRetry     Kind = iota // follow the retry policy: any error without a verdict of its own
	KindPermanent             // to the poison queue at once
	KindDiscard               // acknowledge and count
	KindAfter                 // come back after Delay, counted as a redelivery
	KindDefer                 // come back after Delay, not counted
)

// Verdict is a handler's wish, found in its error.
type Verdict struct {
	Kind  Kind
	Delay time.Duration // of KindAfter and KindDefer
}

type verdictError struct {
	verdict Verdict
	err     error
}

func (e *verdictError) Error() string {
	if e.err == nil {
		return [...]string{"retry", "permanent failure", "discarded", "retry later", "deferred"}[e.verdict.Kind]
	}
	return e.err.Error()
}

func (e *verdictError) Unwrap() error { return e.err }

// Permanent marks err as not worth another try: the event goes to the poison
// queue at once.
func Permanent(err error) error { return &verdictError{Verdict{Kind: KindPermanent}, err} }

// Discard marks err as of no consequence: the event is acknowledged and counted
// as discarded.
func Discard(err error) error { return &verdictError{Verdict{Kind: KindDiscard}, err} }

// RetryAfter asks for the event to come back after d instead of the back-off
// that the retry policy has for it. It counts as a redelivery, so an event whose
// redeliveries are used up goes to the poison queue. Delays below zero are zero.
func RetryAfter(d time.Duration, err error) error {
	return &verdictError{Verdict{Kind: KindAfter, Delay: max(d, 0)}, err}
}

// Defer asks for the event to come back after d without anything being counted:
// it was not tried. An event that is deferred for a day goes to the poison queue.
func Defer(d time.Duration, err error) error {
	return &verdictError{Verdict{Kind: KindDefer, Delay: max(d, 0)}, err}
}

// VerdictOf returns the outermost verdict in err's tree, KindRetry when there is
// none.
func VerdictOf(err error) Verdict {
	if v, ok := errors.AsType[*verdictError](err); ok {
		return v.verdict
	}
	return Verdict{Kind: KindRetry}
}

// deferred reports whether err is a deferral, also one that was made permanent.
func deferred(err error) bool {
	for {
		v, ok := errors.AsType[*verdictError](err)
		if !ok || v.verdict.Kind == KindDefer {
			return ok
		}
		err = v.err
	}
}

// ErrInterrupted is the error of a delivery that was ended from outside, by a
// shutdown for example. It was neither handled nor did it fail: it goes back to
// its subscription with nothing counted.
var ErrInterrupted = errors.New("delivery interrupted")

// interrupted reports whether a delivery that ended with err was interrupted:
// its context, which only the end of the bus or of the transport cancels, has
// ended. Whatever the handler returned then is a consequence of that.
func interrupted(msg *message.Message, err error) bool {
	return errors.Is(err, ErrInterrupted) || msg.Context().Err() != nil
}

// call calls h and gives the message its context back: middleware further in may
// have left its own there, long ended, as Watermill's Timeout does, and that must
// not be taken for an interruption.
func call(h message.HandlerFunc, msg *message.Message) ([]*message.Message, error) {
	defer msg.SetContext(msg.Context())
	return h(msg)
}

// interruption makes err one that says that the delivery was interrupted.
func interruption(err error) error {
	if errors.Is(err, ErrInterrupted) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrInterrupted, err)
}

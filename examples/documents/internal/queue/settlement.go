package queue

import (
	"errors"
	"fmt"
	"time"

	"github.com/gotidings/tidings/middleware"
)

// Settlement is what becomes of a message. The zero value is [Complete].
type Settlement struct {
	abandon    error         // why; nil: it is not abandoned
	delay      time.Duration // until it comes back; 0: as the processor's configuration says
	uncounted  bool          // its delivery, for it was not tried
	deadLetter *DeadLetterError
}

// Complete says that the work is done.
func Complete() Settlement { return Settlement{} }

// Abandon says that the work could not be done now, and why.
func Abandon(cause error) Settlement {
	if cause == nil {
		cause = errors.New("abandoned")
	}
	return Settlement{abandon: cause}
}

// AbandonFor is [Abandon] with a delay instead of the configured one.
func AbandonFor(delay time.Duration, cause error) Settlement {
	s := Abandon(cause)
	s.delay = delay
	return s
}

// Return says that the work was not tried, since what every message needs is not to be had,
// such as the database, and why. The message goes back after the configured delay, and the
// delivery does not count. Until then it keeps its place among those that are handled, so a
// processor that can do nothing takes no more.
func Return(cause error) Settlement {
	s := Abandon(cause)
	s.uncounted = true
	return s
}

// DeadLetter says that the work can't be done. The reason is a word for programs, without a
// colon, and the description a sentence for people.
func DeadLetter(reason, description string) Settlement {
	return Settlement{deadLetter: &DeadLetterError{reason, description}}
}

// Reasons of the processor's own.
const (
	ReasonMaxDeliveries = "max_deliveries" // it was abandoned once too often; the description is the last cause
	ReasonUndecodable   = "undecodable"    // its body is not what was expected
)

// DeadLetterError is why a message was dead-lettered.
type DeadLetterError struct{ Reason, Description string }

func (e *DeadLetterError) Error() string { return e.Reason + ": " + e.Description }

// verdict is the settlement in the terms of the library's middleware.
func (s Settlement) verdict(last bool) error {
	switch {
	case s.deadLetter != nil:
		return middleware.Permanent(s.deadLetter)
	case s.abandon == nil:
		return nil
	case s.uncounted:
		return fmt.Errorf("%w: %w", middleware.ErrInterrupted, s.abandon)
	case last:
		return middleware.Permanent(&DeadLetterError{ReasonMaxDeliveries, fmt.Sprint(s.abandon)})
	case s.delay > 0:
		return middleware.RetryAfter(s.delay, s.abandon)
	}
	return s.abandon
}

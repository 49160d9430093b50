package transports

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrClosed is returned by the methods of a transport after Close.
	ErrClosed = errors.New("transport is closed")

	// ErrTooLarge is returned by Publish for a payload over the transport's
	// MaxMessageBytes. Nothing of that message was sent.
	ErrTooLarge = errors.New("message is too large")

	// ErrUnknownScheme is returned by Open for a URL whose scheme no imported
	// driver has registered.
	ErrUnknownScheme = errors.New("unknown transport scheme")

	// ErrInvalidURL is returned by Open for a URL that no broker could mend: it is
	// malformed, or has a part or parameter that its driver does not know.
	ErrInvalidURL = errors.New("invalid transport URL")

	// ErrUnsupported is returned for what a transport can't do.
	ErrUnsupported = errors.New("not supported by this transport")

	// ErrNoSubscription is returned for a subscription that does not exist.
	ErrNoSubscription = errors.New("no such subscription")

	// ErrPoisonQueueFull is returned by Poison when the poison queue has reached
	// its bound.
	ErrPoisonQueueFull = errors.New("poison queue is full")

	// ErrNoPoisoned is returned for a [PoisonHandle] that is malformed, and by a listing
	// that can't continue after an event because the event has left the poison queue.
	ErrNoPoisoned = errors.New("no such poisoned event; list the poison queue again")
)

// DefaultMaxMessageBytes is the largest payload, in bytes, that transports take
// when they are not configured otherwise: 16 MiB, the default of RabbitMQ 4
// (https://www.rabbitmq.com/docs/configure, max_message_size).
const DefaultMaxMessageBytes = 16 << 20

// TooLarge returns an [ErrTooLarge] that says the sizes, in bytes.
func TooLarge(size, limit int) error {
	return fmt.Errorf("%w: payload of %d bytes, limit %d", ErrTooLarge, size, limit)
}

// PublishError says which messages of a batch were not published.
type PublishError struct {
	Failures []PublishFailure // in order of Index
}

// PublishFailure is a message that was not published, or not certainly.
type PublishFailure struct {
	Index int // place in the batch, from 0
	Err   error
}

// BatchError returns the error of a batch of n messages of which some failed: nil when
// none did, the message's own error when it was alone, and else a [*PublishError].
func BatchError(n int, failures []PublishFailure) error {
	switch {
	case len(failures) == 0:
		return nil
	case n == 1:
		return failures[0].Err
	default:
		return &PublishError{Failures: failures}
	}
}

func (e *PublishError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d messages not published", len(e.Failures))
	const shown = 3
	for i, f := range e.Failures {
		if i == shown {
			b.WriteString("; …")
			break
		}
		fmt.Fprintf(&b, "; %d: %v", f.Index, f.Err)
	}
	return b.String()
}

// Unwrap returns the failures' errors, for errors.Is and errors.As.
func (e *PublishError) Unwrap() []error {
	errs := make([]error, len(e.Failures))
	for i, f := range e.Failures {
		errs[i] = f.Err
	}
	return errs
}

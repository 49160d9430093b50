package bus

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNotRunning is returned by Publish on a bus that has subscriptions and is
	// not started: an event published now could pass a subscription that is about
	// to exist.
	ErrNotRunning = errors.New("bus is not running: call Start before Publish")

	// ErrStarted is returned by Start on a bus that was started before.
	ErrStarted = errors.New("bus was started before")

	// ErrClosed is returned by Publish and Start after Shutdown.
	ErrClosed = errors.New("bus is shut down")

	// ErrShutdown is the cause with which handlers' contexts end when they have
	// not finished within Config.ShutdownTimeout.
	ErrShutdown = errors.New("bus is shutting down")

	// ErrUnknownSubscription is returned for a name that the bus has no
	// subscription of.
	ErrUnknownSubscription = errors.New("unknown subscription")
)

// TypeError says why a Go type can't be published or subscribed to.
type TypeError struct {
	GoType  string // such as "*pb.Order"
	Problem string // with the remedy
}

func (e *TypeError) Error() string { return e.GoType + " " + e.Problem }

// DecodeError is the reason for which a received event is poisoned at once: its
// data can't be read as its type.
type DecodeError struct {
	EventType   string
	ContentType string
	Err         error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("decode %s (%s): %v", e.EventType, e.ContentType, e.Err)
}

func (e *DecodeError) Unwrap() error { return e.Err }

// ErrContentType is the cause of a [DecodeError] when no codec of the bus reads
// the event's content type.
var ErrContentType = errors.New("no codec for this content type")

// UnknownTypeError is the reason for which an event is put off: the
// subscription receives its type but this process has no handler for it. In a
// rolling deploy another replica has.
type UnknownTypeError struct {
	EventType    string
	Subscription string
}

func (e *UnknownTypeError) Error() string {
	return fmt.Sprintf("subscription %s has no handler for events of type %q in this process", e.Subscription, e.EventType)
}

// SubscriptionLostError is why a bus ends by itself: the transport closed a
// subscription.
type SubscriptionLostError struct{ Subscription string }

func (e *SubscriptionLostError) Error() string {
	return fmt.Sprintf("subscription %s was closed by the transport", e.Subscription)
}

// InterruptedError is why a bus is not ready: a subscription has had no consumer at the
// broker for some seconds. The transport goes on trying.
type InterruptedError struct {
	Subscription string
	For          time.Duration // since when it receives nothing
	Err          error         // what the transport said last
}

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("subscription %s has received nothing for %v: %v", e.Subscription, e.For.Round(time.Second), e.Err)
}

func (e *InterruptedError) Unwrap() error { return e.Err }

// ShutdownTimeoutError says that handlers went on after their contexts had ended.
// What they were handling is not acknowledged and will be delivered again.
type ShutdownTimeoutError struct{ Subscriptions []string }

func (e *ShutdownTimeoutError) Error() string {
	return fmt.Sprintf("shutdown timed out with handlers still running in %v", e.Subscriptions)
}

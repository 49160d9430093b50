package rabbitmq

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

var (
	// ErrUnroutable is returned by Publish under [Refuse] for an event that no queue is
	// bound for.
	ErrUnroutable = errors.New("no queue is bound for this topic")

	// errNacked is why a message is sent again: the broker has refused it for now, for
	// example because a queue has lost its majority.
	errNacked = errors.New("the broker has not taken the message")

	// errLost is why something begins anew: the connection or channel is gone.
	errLost = errors.New("connection to the broker is lost")

	// errCancelled is why a subscription has no consumer while its channel is open. The
	// protocol does not say the reason.
	errCancelled = errors.New("the broker has cancelled the consumer: its queue was deleted or has moved, or a message was unsettled for longer than the consumer timeout")
)

// TopologyError says which exchange or queue is not as this transport needs it.
type TopologyError struct {
	Kind    string // "exchange" or "queue"
	Name    string
	Problem string // with the remedy
	Wanted  string // the arguments of the declaration that failed
	Err     error  // what the broker said, such as what the arguments are
}

func (e *TopologyError) Error() string {
	wanted := ""
	if e.Wanted != "" {
		wanted = " (wanted: " + e.Wanted + ")"
	}
	return fmt.Sprintf("%s %q %s%s: %v", e.Kind, e.Name, e.Problem, wanted, e.Err)
}

func (e *TopologyError) Unwrap() error { return e.Err }

// operation is what was asked of an exchange or a queue.
type operation int

const (
	toDeclare operation = iota
	toBind
	toConsume
)

// explain makes a [*TopologyError] of the broker's answer to an operation. The reply codes
// are those of https://www.rabbitmq.com/amqp-0-9-1-reference#constants and the permissions
// those of https://www.rabbitmq.com/docs/access-control#authorisation
func explain(op operation, kind, name string, err error) error {
	refused, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return err
	}
	problem := ""
	switch refused.Code {
	case amqp.PreconditionFailed:
		problem = "can't be consumed in this way"
		switch {
		case op != toDeclare:
		case kind == "queue":
			problem = "exists with other properties than wanted, and those can't be changed; configure the transport as the queue is, or subscribe under a new name, let the old queue run empty and remove it"
		default:
			problem = "exists with other properties than wanted, and those can't be changed; configure another exchange, or delete this one when nobody uses it"
		}
	case amqp.NotFound:
		problem = "does not exist; declare it, or set the topology mode to declare"
	case amqp.AccessRefused:
		switch op {
		case toDeclare:
			problem = "may not be declared by this user; grant the configure permission for it, and read for it and write for the exchange that its arguments name, or set the topology mode to verify or none"
		case toBind:
			problem = "may not be bound by this user; grant the write permission for it and read for the exchange that it is bound to, or set the topology mode to verify or none"
		case toConsume:
			problem = "may not be consumed; grant this user the read permission for it, or end the consumer that has it exclusively"
		}
	case amqp.ResourceLocked:
		problem = "is another connection's own; end that one, or subscribe under another name"
	default:
		return err
	}
	return &TopologyError{Kind: kind, Name: name, Problem: problem, Err: err}
}

// isCode reports whether the broker answered with that reply code.
func isCode(err error, code int) bool {
	refused, ok := errors.AsType[*amqp.Error](err)
	return ok && refused.Code == code
}

// isLost reports whether err says that the channel or its connection is gone, for a
// reason other than what was asked of it.
func isLost(err error) bool {
	refused, ok := errors.AsType[*amqp.Error](err)
	return errors.Is(err, errLost) || errors.Is(err, amqp.ErrClosed) || ok && connectionFault(refused)
}

// connectionFault reports whether an error ended the connection and not just the
// channel. amqp091 reports broken sockets as frame errors and a lost server as 320.
func connectionFault(err *amqp.Error) bool {
	switch err.Code {
	case amqp.ContentTooLarge, amqp.NoRoute, amqp.NoConsumers, amqp.AccessRefused, amqp.NotFound,
		amqp.ResourceLocked, amqp.PreconditionFailed:
		return false
	}
	return true
}

func closedError(op string) error { return fmt.Errorf("%s: %w", op, transports.ErrClosed) }

// ended returns why ctx ended, and what was being waited for.
func ended(ctx context.Context, what string) error {
	return fmt.Errorf("%s: %w", what, context.Cause(ctx))
}

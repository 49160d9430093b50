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
)

// TopologyError says which exchange or queue is not as this transport needs it.
type TopologyError struct {
	Kind    string // "exchange" or "queue"
	Name    string
	Problem string // with the remedy
	Err     error  // what the broker said
}

func (e *TopologyError) Error() string {
	return fmt.Sprintf("%s %q %s: %v", e.Kind, e.Name, e.Problem, e.Err)
}

func (e *TopologyError) Unwrap() error { return e.Err }

// explain makes a [*TopologyError] of the broker's answer to a declaration. The reply
// codes are those of https://www.rabbitmq.com/amqp-0-9-1-reference#constants
func explain(kind, name string, err error) error {
	refused, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return err
	}
	problem := ""
	switch refused.Code {
	case amqp.PreconditionFailed:
		problem = "exists with other properties than wanted, and those can't be changed"
		if kind == "queue" {
			problem += "; configure the transport as the queue is, or subscribe under a new name, let the old queue run empty and remove it"
		} else {
			problem += "; configure another exchange, or delete this one when nobody uses it"
		}
	case amqp.NotFound:
		problem = "does not exist; declare it, or set the topology mode to declare"
	case amqp.AccessRefused:
		problem = "may not be declared by this user; grant the configure permission, or set the topology mode to verify or none"
	case amqp.ResourceLocked:
		problem = "is another connection's own"
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

package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Transport is what a processor needs of one: delays and dead letters that survive it. The
// library's memory, RabbitMQ and SQL transports have both.
type Transport interface {
	transports.Transport
	transports.Requeuer
	transports.PoisonQueue
}

// Delivery is a message on its way through the processor.
type Delivery[T any] struct {
	ID       string
	Body     T
	Count    int              // 1 for the first delivery
	Last     bool             // if it is abandoned now, it is dead-lettered
	Metadata message.Metadata // not to be changed
}

// Config configures a [Processor]. Transport, Name, Topics and Handle are required.
type Config[T any] struct {
	Transport transports.Transport // a [Transport]

	// Name is the durable identity of the queue, "documents.process". Processors of one
	// name share the work.
	Name string

	// Topics are what is bound to the queue.
	Topics []string

	// Handle does the work. It is called concurrently, and should return soon when ctx
	// ends, which is during a Stop that takes too long.
	Handle func(ctx context.Context, d Delivery[T]) Settlement

	// Decode reads a body. nil means JSON.
	Decode func([]byte) (T, error)

	// Concurrency is how many messages are handled at a time. 0 means 4.
	Concurrency int

	// MaxDeliveries is how often a message is delivered at most. 0 means 3.
	MaxDeliveries int

	// RetryDelay is how long an abandoned message waits for its second delivery; the wait
	// doubles each time. RabbitMQ counts in whole seconds. 0 means 1 s.
	RetryDelay time.Duration

	// Middleware goes around Decode and Handle, the first one outermost: for tracing, or to
	// pass messages over.
	Middleware []message.HandlerMiddleware

	// OnDeadLetter, if set, is called when a message is in the dead-letter queue.
	OnDeadLetter func(DeadLettered)

	// Logger takes a line for each delivery that does not complete: never a body. nil means
	// to discard.
	Logger *slog.Logger
}

func (c Config[T]) withDefaults() Config[T] {
	if c.Decode == nil {
		c.Decode = func(data []byte) (v T, err error) {
			err = json.Unmarshal(data, &v)
			return v, err
		}
	}
	if c.Concurrency == 0 {
		c.Concurrency = 4
	}
	if c.MaxDeliveries == 0 {
		c.MaxDeliveries = 3
	}
	if c.RetryDelay == 0 {
		c.RetryDelay = time.Second
	}
	if c.OnDeadLetter == nil {
		c.OnDeadLetter = func(DeadLettered) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate returns the transport, or all faults of c.
func (c Config[T]) validate() (Transport, error) {
	faults := []error{c.subscription().Validate()}
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	transport, ok := c.Transport.(Transport)
	if !ok {
		fault("Transport is a %T, which can't delay messages or keep dead letters", c.Transport)
	}
	if c.Handle == nil {
		fault("Handle is nil")
	}
	if c.MaxDeliveries < 1 {
		fault("MaxDeliveries is %d; it takes at least 1", c.MaxDeliveries)
	}
	if c.RetryDelay < 0 {
		fault("RetryDelay is %v; it must not be negative", c.RetryDelay)
	}
	return transport, errors.Join(faults...)
}

func (c Config[T]) subscription() transports.Subscription {
	return transports.Subscription{Name: c.Name, Topics: c.Topics, Concurrency: c.Concurrency}
}

// delays are those before each delivery but the first.
func (c Config[T]) delays() []time.Duration {
	delays := make([]time.Duration, c.MaxDeliveries-1)
	for i := range delays {
		delays[i] = c.RetryDelay << i
	}
	return delays
}

package amqp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
	adapter "github.com/gotidings/tidings/transports/watermill"
)

// Open connects to a broker with watermill-amqp. It tries once, for no longer than
// Config.ConnectTimeout or until ctx ends; later, watermill-amqp reconnects. It returns
// every fault of cfg in one error.
func Open(ctx context.Context, cfg Config) (*adapter.Transport, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("watermill-amqp: %w", err)
	}
	cfg = cfg.withDefaults()
	c := &connections{cfg: cfg, log: logger{watermill.NewSlogLogger(cfg.Logger)}, queues: make(map[string]string)}

	ctx, cancel := context.WithTimeoutCause(ctx, cfg.ConnectTimeout,
		fmt.Errorf("no broker has answered within %s: %w", cfg.ConnectTimeout, context.DeadlineExceeded))
	defer cancel()
	opened := make(chan error)
	go func() {
		err := c.open()
		select {
		case opened <- err:
		case <-ctx.Done(): // Open has returned
			c.abandon()
		}
	}()
	var err error
	select {
	case err = <-opened:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("watermill-amqp: %w", err)
	}
	return adapter.New(c, nil, adapter.Config{
		Subscriber:      c.subscriberOf,
		Sharing:         adapter.Competing,
		MaxConsumers:    cfg.MaxConsumers,
		Patterns:        cfg.Patterns,
		Ordered:         cfg.Ordered,
		Ephemeral:       cfg.Ephemeral,
		MaxMessageBytes: cfg.MaxMessageBytes,
		CloseTimeout:    cfg.CloseTimeout,
	})
}

// connections is the publisher with its connection, and the connection of all
// subscribers.
type connections struct {
	*wmamqp.Publisher
	subscribing *wmamqp.ConnectionWrapper
	cfg         Config
	log         watermill.LoggerAdapter

	mu     sync.Mutex
	queues map[string]string // the subscription that each queue is for
}

var _ message.Publisher = (*connections)(nil)

// open makes both connections, or none.
func (c *connections) open() (err error) {
	settings := c.cfg.settings(transports.Subscription{})
	if c.Publisher, err = wmamqp.NewPublisher(settings, c.log); err != nil {
		return err
	}
	if c.subscribing, err = wmamqp.NewConnection(settings.Connection, c.log); err != nil {
		return errors.Join(err, c.Publisher.Close())
	}
	return nil
}

// abandon closes what was opened when nobody waited for it any more.
func (c *connections) abandon() {
	if c.subscribing != nil { // the second to be opened
		_ = c.Close() // there is nobody to tell
	}
}

// Close closes both connections. All subscribers have been closed before.
func (c *connections) Close() error {
	return errors.Join(c.Publisher.Close(), c.subscribing.Close())
}

// subscriberOf makes the subscriber of a subscription. It refuses a queue that another
// subscription of this transport has, since they would share its messages.
func (c *connections) subscriberOf(s transports.Subscription) (message.Subscriber, error) {
	settings := c.cfg.settings(s)
	if err := settings.ValidateSubscriberWithConnection(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, topic := range s.Topics {
		queue := settings.Queue.GenerateName(topic)
		if owner, taken := c.queues[queue]; taken && owner != s.Name {
			return nil, fmt.Errorf("queue %q is that of subscription %q: %w: each would get a part of its messages", queue, owner, transports.ErrUnsupported)
		}
		c.queues[queue] = s.Name
	}
	inner, err := wmamqp.NewSubscriberWithConnection(settings, c.log, c.subscribing)
	if err != nil || !s.Ephemeral {
		return inner, err
	}
	return ephemeral{inner, func() { c.free(s.Name) }}, nil
}

// free forgets the queues of an ephemeral subscription. They are deleted with it, and each
// has a name that does not come again.
func (c *connections) free(subscription string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.queues, func(_, owner string) bool { return owner == subscription })
}

// ephemeral frees its queues when it is closed.
type ephemeral struct {
	message.Subscriber
	free func()
}

func (e ephemeral) Close() error {
	defer e.free()
	return e.Subscriber.Close()
}

// logger logs at debug what watermill-amqp takes for information: every connection and
// every subscription that comes or goes.
type logger struct{ watermill.LoggerAdapter }

func (l logger) Info(msg string, fields watermill.LogFields) { l.Debug(msg, fields) }

func (l logger) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return logger{l.LoggerAdapter.With(fields)}
}

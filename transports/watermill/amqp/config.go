package amqp

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// Config configures [Open].
type Config struct {
	// AMQP returns watermill-amqp's configuration for the subscriber of a subscription
	// and, for the zero Subscription, for the publisher. [DurablePubSub], [DurableQueue]
	// and the other two make those that watermill-amqp has in stock. Required.
	//
	// One connection is made for the publisher and one for all subscribers, both by the
	// publisher's Connection. Publish.ConfirmDelivery is switched on unless
	// Transactional is: without either, nil of Publish would mean nothing. A
	// DefaultMarshaler is given the reading of headers that this package has, see the
	// package documentation; a Marshaler of your own is left as it is.
	AMQP func(s transports.Subscription) wmamqp.Config

	// MaxConsumers is how many consumers a subscription has on each of its queues, each
	// with an AMQP channel of its own, bounded by its Concurrency: watermill-amqp handles
	// one message of a consumer at a time. 0 means 16.
	MaxConsumers int

	// Patterns, Ordered and Ephemeral say that the queues and bindings of AMQP are made
	// for topic patterns, for ordered subscriptions (single active consumer), and for
	// ephemeral ones. The configurations in stock are not made for the first two; those
	// for publish and subscribe are made for ephemeral subscriptions.
	Patterns, Ordered, Ephemeral bool

	// ConnectTimeout bounds Open. 0 means 10 s.
	ConnectTimeout time.Duration

	// MaxMessageBytes and CloseTimeout are those of watermill.Config.
	MaxMessageBytes int
	CloseTimeout    time.Duration

	// Logger gets what watermill-amqp logs: errors at their level, everything else at
	// debug. nil discards it.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.MaxConsumers == 0 {
		c.MaxConsumers = 16
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	if c.ConnectTimeout < 0 {
		faults = append(faults, fmt.Errorf("the field ConnectTimeout is %s; it can't be negative", c.ConnectTimeout))
	}
	if c.MaxConsumers < 0 {
		faults = append(faults, fmt.Errorf("the field MaxConsumers is %d; it takes at least 1, or 0 for the default", c.MaxConsumers))
	}
	if c.AMQP == nil {
		faults = append(faults, errors.New("the field AMQP is nil"))
		return errors.Join(faults...)
	}
	publisher := c.settings(transports.Subscription{})
	if err := publisher.ValidatePublisher(); err != nil {
		faults = append(faults, fmt.Errorf("the field AMQP: %w", err))
	}
	if _, err := amqp091.ParseURI(publisher.Connection.AmqpURI); err != nil {
		// The error quotes the URI, and so the password.
		faults = append(faults, errors.New("the field AMQP: Connection.AmqpURI is malformed"))
	}
	return errors.Join(faults...)
}

// settings returns what AMQP says, with what this package changes of it.
func (c Config) settings(s transports.Subscription) wmamqp.Config {
	cfg := c.AMQP(s)
	if !cfg.Publish.Transactional {
		cfg.Publish.ConfirmDelivery = true
	}
	if standard, ok := cfg.Marshaler.(wmamqp.DefaultMarshaler); ok {
		cfg.Marshaler = marshaler{standard}
	}
	cfg.Connection = readable(cfg.Connection)
	return cfg
}

// DurablePubSub is watermill-amqp's durable publish and subscribe: a durable fanout
// exchange of the topic's name and, for each subscription, a durable queue of the name
// topic_subscription. An ephemeral subscription has an exclusive queue that the broker
// deletes with it.
func DurablePubSub(uri string) func(transports.Subscription) wmamqp.Config {
	return pubSub(uri, wmamqp.NewDurablePubSubConfig)
}

// NonDurablePubSub is [DurablePubSub] with exchanges, queues and messages that a restart
// of the broker loses.
func NonDurablePubSub(uri string) func(transports.Subscription) wmamqp.Config {
	return pubSub(uri, wmamqp.NewNonDurablePubSubConfig)
}

func pubSub(uri string, stock func(string, wmamqp.QueueNameGenerator) wmamqp.Config) func(transports.Subscription) wmamqp.Config {
	return func(s transports.Subscription) wmamqp.Config {
		cfg := stock(uri, wmamqp.GenerateQueueNameTopicNameWithSuffix(s.Name))
		cfg.Publish.ChannelPoolSize = publishChannels
		if s.Ephemeral {
			cfg.Queue.Durable, cfg.Queue.Exclusive, cfg.Queue.AutoDelete = false, true, true
		}
		return cfg
	}
}

// DurableQueue is watermill-amqp's durable queue: the topic is the name of a queue on the
// default exchange, and everybody who consumes it shares its messages. So a topic has one
// subscription, and its name is of no account to the broker.
func DurableQueue(uri string) func(transports.Subscription) wmamqp.Config {
	return queue(uri, wmamqp.NewDurableQueueConfig)
}

// NonDurableQueue is [DurableQueue] with queues and messages that a restart of the broker
// loses.
func NonDurableQueue(uri string) func(transports.Subscription) wmamqp.Config {
	return queue(uri, wmamqp.NewNonDurableQueueConfig)
}

func queue(uri string, stock func(string) wmamqp.Config) func(transports.Subscription) wmamqp.Config {
	return func(transports.Subscription) wmamqp.Config {
		cfg := stock(uri)
		cfg.Publish.ChannelPoolSize = publishChannels
		return cfg
	}
}

// publishChannels is how many AMQP channels publish at a time, each of which waits for a
// confirm. Without a pool watermill-amqp opens and closes one for each Publish.
const publishChannels = 8

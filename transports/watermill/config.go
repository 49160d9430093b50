package watermill

import (
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Sharing is what several Subscribe calls for one topic, on one Watermill subscriber,
// mean to each other. Watermill leaves that to the Pub/Sub and its configuration, so
// the adapter has to be told.
type Sharing int

const (
	// SharingUnknown is the zero value: a subscriber serves one subscription of a
	// topic and one consumer of it. A second one is refused, since it would either
	// take messages away from the first or double them.
	SharingUnknown Sharing = iota

	// FanOut is for subscribers where each call gets every message, as with GoChannel or
	// plain Redis Pub/Sub. Subscriptions of different names work, a second consumer of a
	// name is refused.
	FanOut

	// Competing is for subscribers where the calls share the messages, as the consumers of
	// a queue or of a consumer group do. Consumers of one name work, a second name for a
	// topic is refused; Config.Subscriber gives each name a subscriber of its own.
	Competing
)

// Config says what a Watermill publisher and subscriber can do, which can't be seen
// from outside. The zero value trusts them with the least.
type Config struct {
	// Subscriber makes the Watermill subscriber of a subscription, in place of the one
	// that New is given: for Pub/Subs whose consumer group is a setting of the
	// subscriber. Those made for one name must share its messages, and those of
	// different names must each get all. It is called for each consumer, perhaps
	// concurrently, and its subscriber is closed when the consumer ends.
	Subscriber func(s transports.Subscription) (message.Subscriber, error)

	// Sharing is what several Subscribe calls on one subscriber mean to each other.
	Sharing Sharing

	// MaxConsumers is how often a subscription may subscribe to each of its topics,
	// bounded by its Concurrency. Most Watermill subscribers wait for the verdict on
	// one message before they give the next, so that this is the true concurrency. 0
	// means 1; more takes Sharing to be Competing.
	MaxConsumers int

	// Patterns says that the subscriber takes the patterns of [transports.Match] as
	// topics. Without it a subscription with * or # is refused.
	Patterns bool

	// Ordered says that the subscriber gives the messages of one partition key in the
	// order of publishing, to one consumer of a subscription at a time, as the
	// partitions of Kafka do. Without it an ordered subscription is refused. One of
	// several topics is always refused: there is no order between two of them.
	Ordered bool

	// Ephemeral says that a subscription of the subscriber sees what is published while
	// it lives, and leaves nothing behind. Config.Subscriber finds in the field
	// Ephemeral of a subscription what it is to make. Without it an ephemeral
	// subscription is refused.
	Ephemeral bool

	// CloudEventsHeaders adds ce_id and ce_specversion to events on their way out: the
	// attributes that consumers of CloudEvents without Watermill need, in the Kafka
	// protocol binding for example. The event's id is the message's UUID in any case.
	CloudEventsHeaders bool

	// MaxMessageBytes is the largest payload that Publish takes, in bytes. 0 means
	// [transports.DefaultMaxMessageBytes].
	MaxMessageBytes int

	// CloseTimeout bounds each wait for Watermill's publisher and subscriber to end
	// when a subscription or the transport does. What takes longer is left behind, and
	// Close says so. 0 means 10 s.
	CloseTimeout time.Duration

	// LeaveOpen leaves the publisher and subscriber that New is given open when the
	// transport is closed, for those that others use too.
	LeaveOpen bool
}

func (c Config) withDefaults() Config {
	if c.MaxConsumers == 0 {
		c.MaxConsumers = 1
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = transports.DefaultMaxMessageBytes
	}
	if c.CloseTimeout == 0 {
		c.CloseTimeout = 10 * time.Second
	}
	return c
}

func (c Config) validate(publisher message.Publisher, subscriber message.Subscriber) error {
	var faults []error
	if subscriber != nil && c.Subscriber != nil {
		faults = append(faults, errors.New("there are a subscriber and Config.Subscriber, which makes others; give one of the two"))
	}
	if publisher == nil && subscriber == nil && c.Subscriber == nil {
		faults = append(faults, errors.New("there is neither a publisher nor a subscriber"))
	}
	if c.Sharing < SharingUnknown || c.Sharing > Competing {
		faults = append(faults, fmt.Errorf("the field Sharing is %d, which is none of the constants", c.Sharing))
	}
	if c.MaxConsumers < 0 {
		faults = append(faults, fmt.Errorf("the field MaxConsumers is %d; it takes at least 1, or 0 for the default", c.MaxConsumers))
	}
	if c.MaxConsumers > 1 && c.Sharing != Competing {
		faults = append(faults, fmt.Errorf("the field MaxConsumers is %d, but Sharing is not Competing: each message could be delivered %[1]d times", c.MaxConsumers))
	}
	if c.MaxMessageBytes < 0 {
		faults = append(faults, fmt.Errorf("the field MaxMessageBytes is %d; it takes at least 1, or 0 for the default", c.MaxMessageBytes))
	}
	if c.CloseTimeout < 0 {
		faults = append(faults, fmt.Errorf("the field CloseTimeout is %s; it can't be negative", c.CloseTimeout))
	}
	return errors.Join(faults...)
}

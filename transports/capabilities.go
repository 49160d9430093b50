package transports

import (
	"context"
	"iter"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Outgoing is a message on its way to a topic.
type Outgoing struct {
	Topic   string
	Message *message.Message
	Delay   time.Duration // how long to wait before the message is delivered; zero or less: not at all
}

// BatchPublisher is a transport that publishes messages of several topics as
// one batch, waiting once, and that can delay a delivery.
//
// Without it the bus calls Publish for every run of messages of one topic, and
// a delay is refused with [ErrUnsupported].
type BatchPublisher interface {
	// PublishBatch is Publish for messages of several topics. It takes its
	// context as an argument and not from the messages. The messages are given
	// away: the transport keeps what it likes of them, and the caller must not use
	// them again, unlike those of Publish. When only some of the batch could be
	// sent, the error is a [*PublishError].
	PublishBatch(ctx context.Context, batch []Outgoing) error
}

// Requeuer is a transport that can bring a message back to one subscription
// after a delay, durably.
//
// Without it the bus waits in place, holding the message unsettled.
type Requeuer interface {
	// Requeue stores a copy of msg, with its metadata as it stands, and delivers
	// it to the named subscription, and to no other, after delay. It returns nil
	// when the copy is stored; only then may the caller acknowledge msg. A crash
	// in between leaves two copies.
	Requeue(ctx context.Context, subscription string, msg *message.Message, delay time.Duration) error
}

// NotifiedSubscriber is a transport that does not watch each message until it is settled,
// which takes a goroutine for each, where the receiver tells.
type NotifiedSubscriber interface {
	// SubscribeNotified is Subscribe for a receiver that calls settled for every message of
	// the channel after it has acked or nacked it. A message for which it is not called
	// stays in flight until the transport is closed. It may be called concurrently, from
	// anywhere, and does not block.
	SubscribeNotified(ctx context.Context, s Subscription) (messages <-chan *message.Message, settled func(*message.Message), err error)
}

// DelayLimiter is a transport that can't delay a message for as long as it likes.
type DelayLimiter interface {
	// LongestDelay is the longest delay that the transport takes. A longer one is refused
	// with [ErrUnsupported].
	LongestDelay() time.Duration
}

// BatchRequeuer is a transport that can bring many messages back to one subscription at
// once, in order. Without it [Requeuer] is called for each.
type BatchRequeuer interface {
	// RequeueBatch is Requeue for many messages without a delay, waiting once. It returns
	// nil when all of them are stored. After an error some may be, unless the transport
	// says otherwise; a [*PublishError] says which are not certain to be. The messages stay
	// the caller's.
	RequeueBatch(ctx context.Context, subscription string, messages ...*message.Message) error
}

// PoisonQueue is a transport that keeps, for each subscription, the messages
// that its handlers could not handle.
//
// Without it the bus publishes poisoned messages to the topic
// "poison.<subscription>".
type PoisonQueue interface {
	// Poison stores a copy of msg in the poison queue of a subscription. It
	// returns nil when the copy is stored; only then may the caller acknowledge
	// msg.
	Poison(ctx context.Context, subscription string, msg *message.Message) error

	// Poisoned lists the poisoned events of a subscription, oldest first, and changes
	// nothing: an event is not lost, moved or nearer to its end by any number of
	// listings. Each has a handle. The copies of an event that a crash left are listed as
	// one event; two messages with the same id and another content, or without an id, are
	// two. To learn how many there are, use [DepthReporter], which costs the broker less.
	// The sequence ends after the first error.
	Poisoned(ctx context.Context, subscription string, page PoisonPage) iter.Seq2[Poisoned, error]

	// RequeuePoisoned moves exactly the messages that the handles were listed for from the
	// poison queue back to the subscription that failed, for a fresh start: attempts count
	// from zero. A message that has come since then is left alone, also when it is of the
	// same event. RequeuePoisoned returns how many events it moved; one that is not there
	// any more is passed over. A malformed handle is refused with [ErrNoPoisoned] before
	// anything is moved. A crash half-way can leave an event in both places, never in
	// neither.
	RequeuePoisoned(ctx context.Context, subscription string, handles ...PoisonHandle) (int, error)

	// DiscardPoisoned deletes exactly the messages that the handles were listed for, by the
	// rules of RequeuePoisoned, and returns how many events it deleted.
	DiscardPoisoned(ctx context.Context, subscription string, handles ...PoisonHandle) (int, error)
}

// PoisonHandle names one poisoned event of one subscription, as [PoisonQueue] has listed
// it: exactly the messages that were there then. It is text, opaque to all but the
// transport, and valid in other processes too, until the event has left the poison queue.
type PoisonHandle string

// PoisonPage is a part of a poison queue. The zero value is all of it.
type PoisonPage struct {
	After PoisonHandle // the listing begins behind this event; "" means at the oldest
	Limit int          // the most events to list; 0 means no limit
}

// SubscriptionRemover is a transport that can delete a durable subscription.
type SubscriptionRemover interface {
	// RemoveSubscription deletes a subscription with all that waits in it, its
	// poison queue included. Consumers of it see their channel closed. An unknown
	// name is no error.
	RemoveSubscription(ctx context.Context, name string) error
}

// Pinger is a transport that can tell whether its broker answers.
type Pinger interface {
	// Ping returns nil when the broker can be used now. It does not block beyond ctx.
	Ping(ctx context.Context) error
}

// UnknownDepth is the count of what a transport can't count.
const UnknownDepth = -1

// Depth is how many messages a subscription holds. A count that the transport can't
// tell is [UnknownDepth].
type Depth struct {
	Ready    int // waiting to be delivered
	Delayed  int // waiting for their time
	InFlight int // delivered and not settled
	Poisoned int // in the poison queue

	AtLeast DepthAtLeast // which of them are lower bounds
}

// DepthAtLeast says which counts of a [Depth] are lower bounds, since there was too much to
// count it all cheaply.
type DepthAtLeast struct{ Ready, Delayed, InFlight, Poisoned bool }

// DepthReporter is a transport that can count what waits in a subscription.
type DepthReporter interface {
	// Depth returns [ErrNoSubscription] when there is none of that name.
	Depth(ctx context.Context, subscription string) (Depth, error)
}

// SystemNamer is a transport that names its messaging system as OpenTelemetry's semantic
// conventions do, for telemetry: "rabbitmq".
type SystemNamer interface{ MessagingSystem() string }

// Volatile is a transport whose messages do not outlive the process. Components
// that forget at a restart, such as a deduplication store in memory, lose
// nothing there.
type Volatile interface{ Volatile() }

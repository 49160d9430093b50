package transports

import "context"

// SubscriptionInfo is a subscription that exists at the broker.
type SubscriptionInfo struct {
	Name      string         `json:"name"`
	Topics    []string       `json:"topics"`              // patterns; nil when they can't be told
	Ephemeral bool           `json:"ephemeral,omitempty"` // ends with its process
	Arguments map[string]any `json:"arguments,omitempty"` // what can't be changed once it exists, where the transport has that
}

// SubscriptionLister is a transport that can say which subscriptions exist, whoever made
// them. AMQP can't list queues: for RabbitMQ, rabbitmq.Management asks another way.
type SubscriptionLister interface {
	// Subscriptions returns all of them by name, ephemeral ones included.
	Subscriptions(ctx context.Context) ([]SubscriptionInfo, error)
}

// ArgumentDescriber is a transport whose subscriptions have properties that can't be
// changed once they exist, such as the arguments of a queue.
type ArgumentDescriber interface {
	// SubscriptionArguments returns those that Subscribe would give s. It asks no broker.
	SubscriptionArguments(s Subscription) map[string]any
}

// PendingReporter is a transport that can tell what has become of messages that were
// requeued.
type PendingReporter interface {
	// Pending returns which of the named events wait in a subscription as requeued ones
	// (see [Requeuer], and RequeuePoisoned of [PoisonQueue]), for their time or to be
	// delivered, or are in flight. One that is not there was handled, or discarded, or is
	// in the poison queue.
	Pending(ctx context.Context, subscription string, keys ...EventKey) ([]EventKey, error)
}

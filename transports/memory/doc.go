// Package memory is an exact little broker in the memory of the process, for
// tests, examples and programs that need no more. Importing it registers the
// scheme "memory":
//
//	transport, err := transports.Open(ctx, "memory://")
//
// [New] opens one with a [Config]; [NewBroker] and [Broker.Connect] give several
// transports one broker, as several processes would have.
//
// # Semantics
//
// Each subscription has a queue of its own, first in first out. Consumers of one
// subscription share it. A message stays in its queue until it is acknowledged:
// it goes back to its old place when it is nacked, or when its consumer closes. From the
// tenth nack on it comes back a second later; meanwhile others are delivered, and an ordered
// subscription waits.
// A delayed message joins the end of the queue when its time comes. Of the
// consumers of an ordered subscription the first delivers and the others stand by.
//
// Publish puts a message into every queue that its topic matches, or into none:
// it takes effect at once for all of them.
//
// # Back-pressure
//
// A queue holds at most [Config.QueueSize] messages, ready, delayed and in flight
// together. While one of the queues that a message is for is full, Publish
// blocks, first come first served, until there is room everywhere or its context
// ends.
//
// Nobody holds a place while they wait. A message for several queues that others
// keep full has its turn in each, and is taken then, whether the earlier ones
// still have room or not: it lifts a queue over its bound by at most the number
// of publishers that wait.
//
// A handler's Publish must not block: a handler that waits for room in its own
// queue, or two that wait for each other's, would wait for ever. So a message
// published with a context that comes from a delivery is always taken, over the
// bound if need be, and the handler's own subscription is held back instead: it
// delivers nothing more until the queue that overflowed has room again. So a
// queue stays within its bound plus what the handlers in flight at one moment
// publish.
//
// Where that would close a circle of subscriptions, each waiting for the next, the
// last is not held. Publishers outside of handlers wait for it instead, until
// there has been room all the way round, so that a circle holds what they were let
// put in and what the handlers make of that, and works it off.
//
// # Limits
//
// Everything is lost when the process ends. Payloads are limited to
// [Config.MaxMessageBytes]; the poison queue of a subscription to
// [Config.PoisonSize] messages, beyond which poisoning fails and the bus pauses
// the subscription.
package memory

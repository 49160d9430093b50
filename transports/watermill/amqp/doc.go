// Package amqp opens watermill-amqp (version 2) on a team's existing exchanges and queues,
// as a transport: a service moves to this library without touching its topology or its
// neighbours, which may go on with plain Watermill. It is a module of its own, so that
// only who uses it downloads watermill-amqp and its AMQP client.
//
// Importing it registers the schemes "watermill+amqp" and "watermill+amqps" (TLS):
//
//	transport, err := transports.Open(ctx, "watermill+amqp://user:password@host:5672/vhost?topology=pubsub")
//
//	topology           watermill-amqp's settings in stock: pubsub (default), queue,
//	                   nondurable-pubsub, nondurable-queue
//	consumers          most consumers of a subscription on each queue; 16
//	trim_prefix        taken off the names of subscriptions before queues are named by them
//	connect_timeout    most time to open, such as 10s, which is the default
//	max_message_bytes  largest payload; 16 MiB
//
// [Open] takes watermill-amqp's own amqp.Config, for settings that are not in stock.
//
// # Topology
//
// pubsub: a topic is a fanout exchange of its name; a subscription has a queue for each of
// its topics, topic_subscription, as [DurablePubSub] makes them. The bus's name for a
// subscription begins with its service: that of "mail" in the service "shop" is
// "shop.mail". So with trim_prefix=shop. it continues a service that consumed with
// GenerateQueueNameTopicNameWithSuffix("mail").
//
// queue: a topic is a queue on the default exchange, shared by all who consume it. A topic
// then has one subscription; a second one in the same transport is refused.
//
// Exchanges and queues are declared when they are first used; where they exist with other
// settings, the broker's error says which differ.
//
// # Semantics
//
// Publish waits for the broker's confirm, which the settings in stock don't: it is switched
// on. A confirm does not mean that a queue took the message: an exchange without queues
// drops it, as a topic without subscriptions does everywhere.
//
// Concurrency comes from several consumers on a queue, each with a channel and one message
// in flight. A nacked message goes back to the head of its queue, nine times at once and then
// once a second. Its consumer delivers nothing else meanwhile, so at the concurrency 1 those
// behind it wait until it is acknowledged. On quorum queues of your own, RabbitMQ before 4.3
// counts these nacks, and drops or dead-letters the message at the delivery limit (20 by
// default from 4.0 on). RabbitMQ 4.3 does not count them: the message comes again for ever.
//
// The id of an event is in the header _watermill_message_uuid, as watermill-amqp has it,
// its attributes in headers of the names of its metadata: what plain Watermill services
// publish and expect. Messages of others are read too: headers of any type as text (tables
// as JSON), and the properties message-id, correlation-id and content-type where there is
// no header. watermill-amqp's own marshaler refuses a header that is not text, x-death for
// one, and its subscriber then requeues the message without end.
//
// Metadata of more than 120 KiB, which would not fit into a frame and would cost the
// connection, is refused with [transports.ErrTooLarge].
//
// # Limits
//
// This is for the time of moving; transports/rabbitmq is the native transport. What it has
// and watermill-amqp can't:
//
//   - Delayed redelivery, poison queues and delayed publishing. See package
//     transports/watermill for what the bus does instead.
//   - Topic patterns. Ordered subscriptions need queues with a single active consumer,
//     which settings of your own can declare ([Config].Ordered).
//   - Publishing while the connection is away: Publish fails with "not connected" at
//     once instead of waiting for its context.
//   - Pipelined confirms: each of the 8 channels waits for one confirm at a time, so the
//     messages of one Publish are confirmed one after the other.
//   - Prefetch: a consumer receives its next message only after the verdict on the last.
//   - Reconnecting without a race: watermill-amqp replaces a channel that other
//     goroutines read, without a lock, so a race detector that sees a connection break
//     may report it.
//   - Waiting for a broker that is still starting: Open tries once.
package amqp

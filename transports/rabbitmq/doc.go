// Package rabbitmq carries messages by RabbitMQ, over AMQP 0-9-1. Importing it registers
// the schemes "amqp" and "amqps":
//
//	transport, err := transports.Open(ctx, "amqp://user:password@host1,host2:5672/vhost")
//
// Parameters of the URL are fields of [Config]: exchange, queue_type (quorum, classic),
// topology (declare, verify, none), unroutable (count, error, keep), max_message_bytes,
// publish_channels, confirm_window, connect_timeout, heartbeat, name, auth_mechanism
// (plain, external), and for TLS cacertfile, certfile, keyfile and
// server_name_indication. Several hosts share the port; [Open] takes a URL for each.
//
// # Semantics
//
// Publish returns when the broker has confirmed: every queue has the message on disk, and
// a quorum queue on a majority of its nodes. Messages of many callers are under way at a
// time, [Config.ConfirmWindow] on each of [Config.PublishChannels] channels. While the
// connection is down or the broker is short of memory or disk, Publish waits for as long
// as its context allows; what was sent and not confirmed when a connection was lost is
// sent again with the same id, so it can arrive twice.
//
// Calls on a channel take turns, 16 messages at a time, so a large batch does not hold up
// single events. The order within one call is kept, except that an event which the broker
// refuses for now comes later. When the broker closes a channel because it refuses a message
// (no permission, an exchange that is missing), the messages in doubt are published one at a
// time on another channel, and so are messages to that address for a minute after.
//
// A queue that is full under a policy with reject-publish, or that has no leader, makes the
// broker nack an event, which the other queues of the event may have. Publish then tries one
// event at a time, after 1, 2, 4, 8 and 16 seconds, and the others once it is taken. So a queue
// that takes the event gets 5 copies more, for a whole batch, before Publish returns an
// error. A channel on which messages are nacked that another channel gets through is
// replaced. What is for one queue alone (requeues, poisonings, delayed events) is tried for
// as long as the context allows.
//
// A consumer has a prefetch of its Concurrency, so that what one can't take goes to
// another. Acknowledgements of messages in a row are sent as one. A nacked message goes
// back to the front of its queue; after ten times, on classic and ephemeral queues after
// one, it comes as a copy a second later, and an ordered subscription pauses for up to
// 15 s before it begins anew. When the connection is lost, unsettled messages go to
// whoever consumes, and come here again when it is back.
//
// An ordered subscription has one active consumer, and its messages keep their order when
// another takes over.
//
// # Topology
//
//	exchange events (topic)  ─── event type, with * and # ───► queue <subscription>
//	                                                             │ delivered 2000 times
//	                                                             ▼
//	exchange tidings.retry (direct) ── <subscription> ──► ...  queue <subscription>:poison
//	    ▲
//	exchanges and queues tidings.delay.00 to .21, exchange tidings.due
//
// All of it is durable, and every queue is a quorum queue: nothing that is shared lives on
// one node. The delay queues are shared by all services of an exchange. A message waits 2^k
// seconds in the delay queue k, for each bit of its delay. They are made with the first
// durable subscription. Messages that find no queue afterwards, because their subscription
// was removed, are kept in the queue tidings.unrouted, the newest 100,000. A copy of each
// delayed event ends in the queue tidings.discard, which keeps none. Ephemeral
// subscriptions have exclusive queues, which end with the connection, and say so by
// OnInterruption.
//
// With another exchange than "events", the names of the queues and of the other exchanges
// begin with it: staging/shop.mail, staging/shop.mail:poison, staging/tidings.delay.00. So
// environments that share a vhost, each with its exchange, share no queue. Subscriptions
// whose names contain a slash always have the exchange in front: events/shop/mail.
//
// Queue arguments can't be changed. To switch a subscription to ordered, or to another
// queue type, subscribe under a new name, let the old queue run empty and remove the old
// subscription.
//
// A message is a CloudEvent in binary mode, with headers such as cloudEvents_source, and
// the properties message-id, type, app-id, correlation-id, timestamp and content-type.
// Services on plain Watermill can read it and be read. Headers of other types than text
// are received as text, also those that the client library can't read, such as a list of more
// than 8192 elements; what has outgrown a frame is shortened, and named in tidings_truncated; what the broker itself writes, such as x-death, never goes back
// to the broker under its name. Properties that no attribute says are metadata: content-encoding, and with the prefix
// "amqp-" reply-to, priority, expiration, user-id and those that differ from the attribute. They are
// sent back as properties, except expiration and user-id.
//
// # Messages that kill
//
// The broker counts deliveries that nobody settled. A message with two of them is handled
// apart from others, which are then not to blame for the next crash: alone at first, and as
// long as none kills, 2, 4, 8 such messages together. A new consumer takes one message at a
// time until one comes that is no suspect, or until a suspect is handled. After 20 crashes,
// without a process that gave it back alive, a message goes to the poison queue with that as
// its reason. Deploys poison nothing. The delivery limit of the queue, 2000, is for processes
// that do not even get that far.
//
// RabbitMQ before 4.3 counts everything that is returned, also by a shutdown. From 4.3 on it
// counts what was rejected and what a lost channel or connection held; a shutdown nacks
// what it returns, and leaves no mark.
//
// In an ordered subscription a message can't be given back without being counted, and
// those behind it are counted with it; there it takes 1000.
//
// # Limits
//
// Delays are whole seconds, rounded up, and 30 days at most. Payloads are limited to
// [Config.MaxMessageBytes], and all the metadata of a message to one frame, 128 KiB by
// default. Names of subscriptions have 247 bytes at
// most, less the exchange in front of them. Queues are not bounded: the
// broker's memory and disk alarms hold publishers back. [Transport.Depth] does not know
// what is in flight or delayed. A listing reads the whole poison queue, and keeps its page in memory.
//
// A message that is unsettled for longer than the broker's consumer timeout, 30 minutes by
// default, makes the broker close the channel, or cancel the consumer from 4.3 on: all that
// is in flight in that consumer comes again, while it may still be handled. What is not yet
// handled is left to other processes. The log says why, and the consumer begins again once a
// handler is free. Ordered subscriptions ask for 24 hours, which 3.10 and 3.11 ignore, and so
// do queues that an earlier version made on 3.12 to 4.2.
//
// RabbitMQ 4.3 keeps what the consumers of a dead node hold, for 60 seconds by default; the
// queues of this package make that 5 seconds. For a queue that an earlier version made,
// the log has a policy that does the same. When somebody else deletes the exchange,
// it is declared again, but bindings are not: subscriptions bind when they consume anew,
// and delayed events with the next delayed one.
//
// A client that is connected to a node in the minority of a partitioned cluster stays there:
// its publishes wait for a confirm and its subscriptions receive nothing until the partition ends, or
// the node closes its connections. With cluster_partition_handling = pause_minority it does so
// at once, and the client goes to the next of its URLs.
//
// The broker, not this package, is at risk in the first second of a new quorum queue: a
// single node of 3.10 that is killed within about a second after it has made the queue
// loses what was confirmed there, and the queue has no leader any more. Subscribing then
// fails with "waiting for the broker's answer", and where it is a delay queue, what should
// wait there comes again after half a minute instead. This makes it usable again, with the
// vhost (%2F is "/") and the queue's name:
//
//	rabbitmqctl eval 'ra:trigger_election({list_to_atom("%2F_shop.audit"), node()}).'
//
// RabbitMQ 3.10 is the oldest supported version: quorum queues have message TTL and
// at-least-once dead lettering since then. docs/versions.md lists the versions that are
// tested, and what they do differently.
package rabbitmq

// Package watermill makes a transport of any Watermill publisher and subscriber: Kafka,
// NATS, Google Cloud Pub/Sub, SNS and SQS, Redis, GoChannel and whatever else speaks
// Watermill's two interfaces.
//
//	transport, err := watermill.New(publisher, nil, watermill.Config{
//		Subscriber: func(s transports.Subscription) (message.Subscriber, error) {
//			return kafka.NewSubscriber(kafka.SubscriberConfig{ConsumerGroup: s.Name, …}, logger)
//		},
//		Ordered: true,
//	})
//
// The nested module transports/watermill/amqp opens watermill-amqp by URL. Where there
// is a native transport for a broker it does more, and is faster; this package is how a
// service moves to the library first and to that later.
//
// # What Watermill's interfaces don't say
//
// Whether two subscribers share a topic's messages or each get all of them, whether
// topics may be patterns, whether an order is kept: that is the Pub/Sub's affair and
// invisible from outside. [Config] says it. What it does not say is not assumed:
// Subscribe refuses with [transports.ErrUnsupported] whatever could lose, share or double
// messages by a wrong guess.
//
// # Semantics
//
// Publish gives all its messages to the publisher in one call. That nil means "stored"
// is as true as it is of the publisher: watermill-amqp, for one, needs ConfirmDelivery.
// The context bounds the caller's wait also where the publisher does not heed it. The
// publisher's call then goes on in a goroutine with a copy of the messages, at most 1024
// of them, which Close waits for.
//
// A subscription subscribes once to each of its topics and merges what comes, so there is
// no order between topics. No more than Concurrency messages are in flight, of all topics
// together; one more of each topic may be held back. Many Watermill subscribers wait for
// each verdict, so that one message of a topic is in flight whatever the Concurrency is:
// [Config.MaxConsumers] lifts that where consumers compete.
//
// Delivered messages are copies with a context of the consumer's own, which also has the
// values that the Watermill subscriber put into its. That one's end means nothing to the
// handler.
//
// When Subscribe's context ends, nothing more is taken from Watermill, but its
// subscriptions live on until everything in flight is settled: many subscribers forget
// what is in flight when their context ends, and handle it again later. Then they are
// ended, by their Close first if Config.Subscriber made them, and what they still offer is
// nacked. Whether a nacked message goes back to its place, to the end, or nowhere, is the
// subscriber's affair. From the tenth nack of a message on, the subscriber gets it a second
// later; meanwhile an ordered subscription delivers nothing.
//
// A Watermill channel that is closed although nobody ended it ends its subscription, and
// with it the bus.
//
// # Metadata
//
// The message's UUID is the event's id, metadata is what it is: ce_source, ce_type and so
// on, see package events. Watermill's correlation_id is written beside ce_correlationid
// and read in its place, so one correlation id goes through services with Watermill's
// middleware.CorrelationID and services with the bus, in both directions. A message
// without a UUID takes its id from _watermill_message_uuid or ce_id. One without a type
// has its topic's name as its type in handlers.
//
// # Limits
//
// There are no delays, no poison queues, no removal of subscriptions, no ping and no
// depth. The bus has substitutes, and says at start where it uses them: a failed event
// waits in place, in flight, for its redeliveries, which holds up others if the subscriber
// waits for its verdict; a poisoned event is published to the topic
// poison.<subscription>, which needs a subscription to keep it; a publish with a delay is
// refused.
//
// A durable subscription is what the Pub/Sub keeps. The topics that it had before and
// has no longer are not subscribed to: what still comes to them waits there.
//
// The transport does not say that it is volatile, because it can't know: a memory store
// for deduplication needs bus.Config.AllowVolatileDedup.
//
// Ending a subscription takes a tenth of a second, so that the subscriber can take back
// what it offers, except where Config.Subscriber made it.
package watermill

// Package transports is the seam between the bus and what carries its messages.
//
// A [Transport] publishes Watermill messages to topics and delivers them to
// named subscriptions. Everything beyond that is an optional capability, a
// small interface that a transport may implement too and that is found by a
// type assertion: [BatchPublisher], [NotifiedSubscriber], [Requeuer], [PoisonQueue],
// [SubscriptionRemover], [Pinger], [DepthReporter], [SubscriptionLister],
// [ArgumentDescriber], [PendingReporter], [Volatile].
//
// [Open] opens a transport by URL. A driver registers its scheme when its
// package is imported, as with database/sql:
//
//	import _ "github.com/gotidings/tidings/transports/memory"
//
//	transport, err := transports.Open(ctx, "memory://")
//
// # Topics
//
// A topic is the wire name of an event type: words joined by dots, such as
// "order.created". A subscription lists topic patterns, in which * stands for
// exactly one word and # for any number of words, none included, as in an AMQP
// 0-9-1 topic exchange. [Match] is that rule.
//
// # With Watermill
//
// [AsSubscriber] and [AsPublisher] put a transport under a plain Watermill router.
// Package transports/watermill is the reverse: a transport of any Watermill publisher and
// subscriber.
//
// # A transport of your own
//
// Package transporttest is the suite that every transport of this library passes;
// docs/guarantees.md says what passed. A transport registers its URL scheme with
// [Register].
//
// # Who does what
//
// Transports move messages and keep them; they retry nothing and log little.
// Attempts, back-off, poison reasons and deduplication are the middleware's
// work, above the seam. Errors are returned as they come from the protocol's
// client, wrapped in the errors of this package where those say it better.
package transports

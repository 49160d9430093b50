// Package bus publishes typed events and delivers them to typed handlers.
//
//	transport, err := transports.Open(ctx, "memory://")
//	b, err := bus.New(transport, bus.Config{Source: "shop"})
//	bus.Subscribe(b, "send-welcome-email", handler) // func(context.Context, events.CustomerCreated) error
//	err = b.Start(ctx)                               // returns when the subscription exists
//	err = b.Publish(ctx, events.CustomerCreated{CustomerID: 42, Email: "ada@example.com"})
//	err = b.Shutdown(ctx)
//
// A handler finds the event's metadata, its id and the number of the attempt among them,
// with [events.MetadataFrom] in its context. The guide is in the repository's folder docs:
// https://github.com/gotidings/tidings/tree/main/docs
//
// # An event's way
//
//	Publish ─► validate, encode ─► publish middleware ─► transport
//	                                                        │ one queue for each subscription
//	handler ◄─ decode, validate ◄─ middleware ◄─ Watermill router
//
// Publish returns nil when the transport has stored the event for every
// subscription. The middleware of package middleware surrounds each handler, in
// the order that is documented there.
//
// # Codecs and CloudEvents
//
// An event's data is written by the first codec of Config.Codecs that encodes its type,
// and read by the first one that accepts its content type: [JSON] by default. Protobuf
// messages have a codec in the module codecs/protobuf.
//
// A message is a CloudEvent in binary mode: its payload is the data, its metadata the
// attributes. One in structured mode, [events.JSONFormat], is unwrapped on receipt before
// anything else, so that subscriptions never see the difference; one that is malformed,
// and a batch, are poisoned at once. Config.StructuredMode publishes in that mode.
//
// # What a handler's error means
//
// nil acknowledges the event. [Permanent] sends it to the poison queue at once;
// [RetryAfter] lets it come back after a time; [Discard] drops it; any other error,
// and a panic, follows the [RetryPolicy]: a few quick attempts in place, then
// redeliveries with growing delays that the transport keeps, then the poison queue.
// An event that can't be decoded, or is not valid, is poisoned at once.
//
// Poisoned events are listed with [Bus.Poisoned] and put back with [Bus.Redrive].
//
// # How often
//
// An event is delivered at least once: a crash between a handler's success and the
// acknowledgement leads to another delivery. A deduplication store, Config.Dedup,
// keeps that from the handler as far as its memory reaches.
//
// # When something is down
//
// [CircuitBreaker] pauses a subscription while the dependency of its handler is down,
// [Bus.Pause] when the operator says so, and a poison queue that can't be written by
// itself. What a subscription holds meanwhile is neither counted nor poisoned; after 15
// minutes it goes back to the transport, since brokers take back what is not settled in
// time, and comes again. [RateLimit], [Policies] and [Fallback] are the rest of
// failsafe-go's policies, whose objects can be shared with clients.
//
// # Order
//
// Without [Ordered] the order is best effort. With it, the events of one partition
// key are handled one after the other, in the order of their publishing. One that goes
// back takes those behind it with it.
//
// # Life
//
// [Bus.Start] returns when every subscription exists; [Bus.Shutdown] stops the
// intake, lets handlers in flight finish, interrupts those that take too long, and
// leaves what was not finished at the transport, uncounted. [Bus.Run] is both. The
// transport belongs to the caller, who closes it afterwards.
package bus

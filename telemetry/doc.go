// Package telemetry makes OpenTelemetry spans and metrics of what buses, outboxes and
// relays do, by the semantic conventions for messaging, v1.43.0:
//
//	tel, err := telemetry.New(telemetry.Config{}) // the global providers
//	b, err := bus.New(broker, bus.Config{Source: "shop", Instrumentation: []bus.Instrumentation{tel}})
//
//	ob, err := outbox.New(ctx, outbox.Config{DB: db, Source: "shop", PublishMiddleware: []bus.PublishMiddleware{tel.Outbox()}})
//	relay, err := outbox.NewRelay(ob, outbox.RelayConfig{Name: "rabbitmq", To: broker, PublishMiddleware: []bus.PublishMiddleware{tel.Relay(broker)}})
//	stop, err := outboxmetrics.Observe(ob, outboxmetrics.Config{})
//
// It is a module of its own and uses OpenTelemetry's API: who does not import it links
// nothing of OpenTelemetry, and programs choose the SDK, the sampler and the exporters.
//
// # Spans
//
//	name             kind      when                                     parent
//	send <topic>     PRODUCER  one event is published                   the caller's span
//	create <topic>   PRODUCER  an event of a batch is made, or one is   the caller's span
//	                           written to an outbox
//	send <topic>     CLIENT    a batch is sent, or by a relay or a      the caller's span; a relay has none
//	                           bridge what was created elsewhere
//	process <topic>  CONSUMER  a delivery is handled, with its retries  the span that created the event
//	                           in place and their waits
//
// The send span of a batch of several topics is named "send". A CLIENT span has a link to
// each span that created one of its events, and a process span has one to its own. With
// [Config.NewTraces] a process span has that link and no parent. A delivery that waits for
// a paused subscription has no span until it goes on.
//
// An event carries the context of the span that created it, as the CloudEvents attributes
// traceparent and tracestate, through the broker, redeliveries, the poison queue and a
// redrive, the outbox and its relay. So what an event sets off is in the trace of what
// published it, however much later, and what a handler publishes with its context too.
//
//	attribute                                  spans
//	messaging.system                           all: "rabbitmq", "postgresql", "mysql", "sqlite", "memory", "outbox"; [Config.System]
//	messaging.operation.name, .type            all: "send", "create", "process"
//	messaging.destination.name                 all but those of mixed batches: the topic
//	messaging.rabbitmq.destination.routing_key on RabbitMQ: the topic
//	messaging.destination.subscription.name    process: with the service, "shop.send-welcome-email"
//	messaging.consumer.group.name              process: the same
//	messaging.message.id                       of one event
//	messaging.message.conversation_id          of one event: its correlation id
//	messaging.batch.message_count              of a batch
//	error.type                                 what failed, see [ErrorType]
//	tidings.attempt                            process: number of the delivery's first attempt
//	tidings.outcome                            process: handled, redelivered, deferred, deduplicated, discarded, poisoned; returned
//	                                           when it was interrupted, failed when nothing has dealt with the error
//
// A retry in place is the event "tidings.retry" of the process span, with tidings.attempt
// and error.type. Payloads are in no span. The text of an error is the status of its span.
//
// # Metrics
//
//	name                                type       unit       attributes
//	messaging.client.operation.duration histogram  s          system, operation, topic, error.type
//	messaging.client.sent.messages      counter    {message}  system, operation, topic, error.type
//	messaging.client.consumed.messages  counter    {message}  system, operation, topic, subscription, error.type
//	messaging.process.duration          histogram  s          system, operation, topic, subscription, error.type
//	tidings.critical_time               histogram  s          topic, subscription: from the event's time to the end of its handling
//	tidings.retries                     counter    {retry}    topic, subscription, error.type, tidings.retry.kind: in_place, redelivery
//	tidings.poisoned                    counter    {message}  topic, subscription, error.type
//	tidings.deduplicated                counter    {message}  topic, subscription
//	tidings.discarded                   counter    {message}  topic, subscription
//	tidings.deferred                    counter    {message}  topic, subscription: put off without an attempt
//	tidings.unhandled                   counter    {message}  topic, subscription: put off, since there is no handler for its type
//	tidings.in_flight                   up-down    {message}  system, subscription
//	tidings.subscription.messages       gauge      {message}  system, subscription, tidings.state: ready, delayed, in_flight
//	tidings.poison.messages             gauge      {message}  system, subscription
//	tidings.outbox.messages             gauge      {message}  tidings.outbox.destination, of package outboxmetrics
//	tidings.outbox.oldest.age           gauge      s          tidings.outbox.destination
//	tidings.outbox.parked               gauge      {message}  tidings.outbox.destination
//
// Attributes have the names that they have in spans. None is an id, an ephemeral
// subscription is named without what makes it unique, and after 1,000 topics the others are
// "_OTHER", so their number is bounded. sent.messages counts what was attempted. What a
// publish fails of before that, an event that is not valid for one, is counted nowhere.
//
// The depth of subscriptions is asked of the transport when metrics are collected, at most
// once in [Config.DepthInterval] and for 5 s; each process that has the subscription reports
// the same, so it is not to be summed over processes. That of a transport that can't count
// is missing.
//
// # Sampling and costs
//
// The sampler is asked where an event is published outside of a trace, and follows its
// parent from there on. Where a trace is not sampled there are no spans but its context goes
// on, so that other instrumentation does not begin a trace in its middle. That fits the
// SDK's default sampler; [Config.AskSampler] is for others.
package telemetry

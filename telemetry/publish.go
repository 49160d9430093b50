package telemetry

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// Outbox returns what goes into outbox.Config.PublishMiddleware: each event that is
// published in a transaction gets a span "create <topic>", whose context it carries to the
// relay and on to its handlers. Nothing is sent yet, so it counts no sent messages. The
// messaging.system is "outbox".
func (t *Telemetry) Outbox() bus.PublishMiddleware {
	w := &writer{sender{Telemetry: t, creates: newDestinations(create, "outbox", "")}}
	return w.middleware
}

// Relay returns what goes into outbox.RelayConfig.PublishMiddleware, for a relay to a
// transport: spans "send <topic>" with links to those that created the events, and the
// metrics of sending.
func (t *Telemetry) Relay(to transports.Transport) bus.PublishMiddleware {
	return t.sender(to).middleware
}

// sender returns the sender to a system: one for all buses and relays, since what it has
// counted outlives them.
func (t *Telemetry) sender(to transports.Transport) *sender {
	system := t.system(to)
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.senders[system]
	if !ok {
		s = &sender{Telemetry: t, sends: newDestinations(send, system, ""), creates: newDestinations(create, system, "")}
		t.senders[system] = s
	}
	return s
}

func (t *Telemetry) system(tr transports.Transport) string {
	if namer, ok := tr.(transports.SystemNamer); ok {
		return namer.MessagingSystem()
	}
	return t.cfg.System
}

// sender makes the spans and metrics of publishing.
type sender struct {
	*Telemetry
	sends, creates *destinations
}

func (s *sender) middleware(next bus.PublishFunc) bus.PublishFunc {
	return func(ctx context.Context, batch []transports.Outgoing) error {
		switch len(batch) {
		case 0:
			return next(ctx, batch)
		case 1:
			return s.one(ctx, batch, next)
		}
		return s.many(ctx, batch, next)
	}
}

// one sends a single message: the send span is the one that creates it.
func (s *sender) one(ctx context.Context, batch []transports.Outgoing, next bus.PublishFunc) error {
	msg, d := batch[0].Message, s.sends.of(batch[0].Topic)
	_, sc, created := s.created(ctx, msg)
	kind := asProducer
	if created {
		kind = asClient
	}
	start := time.Now()
	ctx, span := d.start(ctx, s.Telemetry, kind)
	defer span.End()
	if !created {
		s.inject(ctx, msg)
	}
	if span.IsRecording() {
		span.SetAttributes(identity(msg)...)
		if created {
			span.AddLink(trace.Link{SpanContext: sc})
		}
	}

	err := next(ctx, batch) // gives the message away
	if err != nil {
		fail(span, err)
	}
	s.metrics.operation.Record(ctx, time.Since(start).Seconds(), d.took(err)...)
	d.count(err)
	return err
}

// many sends a batch: one span sends it, and each message has one that creates it.
func (s *sender) many(ctx context.Context, batch []transports.Outgoing, next bus.PublishFunc) error {
	links, fresh := s.create(ctx, batch)
	topics, whole := count(batch)
	d := s.sends.mixed
	if whole {
		d = s.sends.of(batch[0].Topic)
	}
	kind := asClient
	if len(fresh) > 0 {
		kind = asProducer // its context is that of messages
	}
	start := time.Now()
	ctx, span := d.start(ctx, s.Telemetry, kind)
	defer span.End()
	for _, msg := range fresh {
		s.inject(ctx, msg)
	}
	if span.IsRecording() {
		span.SetAttributes(semconv.MessagingBatchMessageCount(len(batch)))
		for _, sc := range links {
			span.AddLink(trace.Link{SpanContext: sc})
		}
	}

	err := next(ctx, batch)
	if err != nil {
		fail(span, err)
	}
	s.metrics.operation.Record(ctx, time.Since(start).Seconds(), d.took(err)...)
	s.countSent(topics, err)
	return err
}

// create makes the spans of messages that have none yet, and returns the contexts in which
// the messages of a batch were created; fresh are those that take the send span's.
func (s *sender) create(ctx context.Context, batch []transports.Outgoing) (links []trace.SpanContext, fresh []*message.Message) {
	for _, out := range batch {
		if _, sc, created := s.created(ctx, out.Message); created {
			links = append(links, sc)
			continue
		}
		if s.cfg.NoCreateSpans {
			fresh = append(fresh, out.Message)
			continue
		}
		inside, span := s.createSpan(ctx, out)
		span.End()
		links = append(links, trace.SpanContextFromContext(inside))
	}
	return links, fresh
}

// createSpan starts the span of a message and writes its context into it.
func (s *sender) createSpan(ctx context.Context, out transports.Outgoing) (context.Context, trace.Span) {
	d := s.creates.of(out.Topic)
	ctx, span := d.start(ctx, s.Telemetry, asProducer)
	s.inject(ctx, out.Message)
	if span.IsRecording() {
		span.SetAttributes(identity(out.Message)...)
	}
	return ctx, span
}

// count returns the topic of each message, since messages are given away, and whether it
// is the same.
func count(batch []transports.Outgoing) (topics []string, whole bool) {
	topics, whole = make([]string, len(batch)), true
	for i, out := range batch {
		topics[i] = out.Topic
		whole = whole && out.Topic == batch[0].Topic
	}
	return topics, whole
}

// countSent counts the messages of a batch: those that failed with their own errors.
func (s *sender) countSent(topics []string, err error) {
	failed := make(map[int]error)
	if partial, ok := errors.AsType[*transports.PublishError](err); ok {
		for _, f := range partial.Failures {
			failed[f.Index] = f.Err
		}
	} else if err != nil {
		for i := range topics {
			failed[i] = err
		}
	}
	for i, topic := range topics {
		s.sends.of(topic).count(failed[i])
	}
}

// writer makes the spans of an outbox.
type writer struct{ sender }

func (w *writer) middleware(next bus.PublishFunc) bus.PublishFunc {
	return func(ctx context.Context, batch []transports.Outgoing) error {
		d := w.creates.mixed
		if _, whole := count(batch); whole && len(batch) > 0 {
			d = w.creates.of(batch[0].Topic)
		}
		start := time.Now()
		inside, spans := w.begin(ctx, batch)
		defer func() {
			for _, span := range spans {
				span.End()
			}
		}()
		err := next(inside, batch)
		if err != nil {
			for _, span := range spans {
				fail(span, err)
			}
		}
		w.metrics.operation.Record(ctx, time.Since(start).Seconds(), d.took(err)...)
		return err
	}
}

// begin starts the spans of the events that have none yet. The context is that of the span
// of a single event: those of several are beside each other.
func (w *writer) begin(ctx context.Context, batch []transports.Outgoing) (inside context.Context, spans []trace.Span) {
	inside = ctx
	for _, out := range batch {
		if _, _, created := w.created(ctx, out.Message); created {
			continue
		}
		of, span := w.createSpan(ctx, out)
		spans = append(spans, span)
		if len(batch) == 1 {
			return of, spans
		}
	}
	return inside, spans
}

// identity are the attributes of a single message.
func identity(msg *message.Message) []attribute.KeyValue {
	attrs := []attribute.KeyValue{semconv.MessagingMessageID(msg.UUID)}
	if id := msg.Metadata[events.AttributePrefix+"correlationid"]; id != "" {
		attrs = append(attrs, semconv.MessagingMessageConversationID(id))
	}
	return attrs
}

// maxDescription bounds the text of an error in a span, in bytes.
const maxDescription = 1 << 10

// fail marks the span of what has failed.
func fail(span trace.Span, err error) {
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(semconv.ErrorTypeKey.String(ErrorType(err)))
	text := err.Error()
	span.SetStatus(codes.Error, text[:min(len(text), maxDescription)])
}

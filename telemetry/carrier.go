package telemetry

import (
	"context"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/events"
)

// Keys of the W3C trace context in a message's metadata, see the distributed tracing
// extension of CloudEvents,
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/extensions/distributed-tracing.md
const (
	traceParentKey = events.AttributePrefix + "traceparent"
	traceStateKey  = events.AttributePrefix + "tracestate"
)

// carrier is a message's metadata to a propagator: its fields are CloudEvents attributes.
type carrier message.Metadata

var _ propagation.TextMapCarrier = carrier(nil)

func (c carrier) Get(field string) string { return c[key(field)] }

func (c carrier) Set(field, value string) { c[key(field)] = value }

func (c carrier) Keys() []string {
	var fields []string
	for k := range c {
		if field, ok := strings.CutPrefix(k, events.AttributePrefix); ok {
			fields = append(fields, field)
		}
	}
	return fields
}

// key returns the metadata key of a propagator's field.
func key(field string) string {
	switch field { // without making a string of the usual ones
	case "traceparent":
		return traceParentKey
	case "tracestate":
		return traceStateKey
	}
	return events.AttributePrefix + field
}

// attributeName reports whether CloudEvents allows field as the name of an attribute.
func attributeName(field string) bool {
	for _, c := range []byte(field) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return field != ""
}

// inject writes the context of a span into a message.
func (t *Telemetry) inject(ctx context.Context, msg *message.Message) {
	if msg.Metadata == nil {
		msg.Metadata = make(message.Metadata)
	}
	t.cfg.Propagator.Inject(ctx, carrier(msg.Metadata))
}

// created returns the context in which a message was created, with what else the
// propagator has found in the message; ok is false when the message has none.
func (t *Telemetry) created(ctx context.Context, msg *message.Message) (_ context.Context, sc trace.SpanContext, ok bool) {
	if !t.carries(msg) {
		return ctx, sc, false
	}
	extracted := t.cfg.Propagator.Extract(ctx, carrier(msg.Metadata))
	sc = trace.SpanContextFromContext(extracted)
	// A propagator that finds nothing valid leaves what ctx has, which is not remote.
	return extracted, sc, sc.IsValid() && sc.IsRemote()
}

// carries reports whether a message has a field of the propagator.
func (t *Telemetry) carries(msg *message.Message) bool {
	for _, field := range t.fields {
		if _, ok := msg.Metadata[field]; ok {
			return true
		}
	}
	return false
}

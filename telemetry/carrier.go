package telemetry

import (
	"context"
	"encoding/hex"
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
	if sc := trace.SpanContextFromContext(ctx); t.w3c && sc.IsValid() && !sc.IsSampled() && sc.TraceState().Len() == 0 {
		msg.Metadata[traceParentKey] = unsampledParent(sc)
		return
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
	if t.w3c {
		return msg.Metadata[traceParentKey] != ""
	}
	for _, field := range t.fields {
		if _, ok := msg.Metadata[field]; ok {
			return true
		}
	}
	return false
}

// W3C Trace Context, version 00, https://www.w3.org/TR/trace-context-2/#traceparent-header:
// "00-", 32 digits of the trace, "-", 16 of the span, "-", two of flags. What is not sampled
// is nearly everything, so it has a short cut; the propagator takes the rest.
const (
	parentLength = 55
	traceAt      = 3
	spanAt       = traceAt + 32 + 1
	flagsAt      = spanAt + 16 + 1
)

// unsampledParent returns the traceparent of a context that is not sampled, of which it
// drops the flags that nobody has defined.
func unsampledParent(sc trace.SpanContext) string {
	var out [parentLength]byte
	traceID, spanID := sc.TraceID(), sc.SpanID()
	copy(out[:], "00-")
	hex.Encode(out[traceAt:], traceID[:])
	out[spanAt-1] = '-'
	hex.Encode(out[spanAt:], spanID[:])
	copy(out[flagsAt-1:], "-00")
	return string(out[:])
}

// notSampled reads the context of a message that was created in a trace that is not
// sampled; ok is false for everything else, which is the propagator's to read.
func notSampled(md message.Metadata) (sc trace.SpanContext, ok bool) {
	parent := md[traceParentKey]
	if len(parent) != parentLength || parent[:traceAt] != "00-" || parent[spanAt-1] != '-' || parent[flagsAt-1:] != "-00" {
		return sc, false
	}
	if _, more := md[traceStateKey]; more {
		return sc, false
	}
	var traceID trace.TraceID
	var spanID trace.SpanID
	if !unhex(traceID[:], parent[traceAt:]) || !unhex(spanID[:], parent[spanAt:]) {
		return sc, false
	}
	sc = trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID, Remote: true})
	return sc, sc.IsValid()
}

// unhex fills dst from as many lower-case hexadecimal digits as it takes.
func unhex(dst []byte, digits string) bool {
	var bad byte
	for i := range dst {
		high, low := digitValue[digits[2*i]], digitValue[digits[2*i+1]]
		bad |= high | low
		dst[i] = high<<4 | low
	}
	return bad <= 0xf
}

// digitValue has the value of each lower-case hexadecimal digit, and 0xff for other bytes.
var digitValue = func() (values [256]byte) {
	for c := range values {
		values[c] = 0xff
	}
	for v, c := range []byte("0123456789abcdef") {
		values[c] = byte(v)
	}
	return values
}()

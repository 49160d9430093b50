package tracing

import (
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/events"
)

// Messages makes a span "process <queue>" of each message, in the trace in which it was
// created. What takes messages without a bus needs it.
func Messages(tp trace.TracerProvider, queue string) message.HandlerMiddleware {
	tracer := tp.Tracer(scope)
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			ctx := propagator.Extract(msg.Context(), attributes(msg.Metadata))
			ctx, span := tracer.Start(ctx, "process "+queue, trace.WithSpanKind(trace.SpanKindConsumer),
				trace.WithAttributes(semconv.MessagingSystemKey.String("tidings"), semconv.MessagingDestinationName(queue)))
			defer span.End()
			msg.SetContext(ctx)
			out, err := h(msg)
			if err != nil {
				span.RecordError(err)
				span.SetStatus(codes.Error, "not processed")
			}
			return out, err
		}
	}
}

// attributes are a message's CloudEvents attributes as the fields of a propagator.
type attributes message.Metadata

var _ propagation.TextMapCarrier = attributes(nil)

func (a attributes) Get(field string) string { return a[events.AttributePrefix+field] }

func (a attributes) Set(field, value string) { a[events.AttributePrefix+field] = value }

func (a attributes) Keys() (fields []string) {
	for key := range a {
		if field, ok := strings.CutPrefix(key, events.AttributePrefix); ok {
			fields = append(fields, field)
		}
	}
	return fields
}

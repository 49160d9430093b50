package tracing

import (
	"context"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/events"
)

// Message runs fn in a span "process <queue>", in the trace in which a message was created.
// What takes messages without a bus needs it.
func Message(ctx context.Context, tp trace.TracerProvider, queue string, metadata message.Metadata, fn func(context.Context) error) error {
	ctx = propagator.Extract(ctx, attributes(metadata))
	ctx, span := tp.Tracer(scope).Start(ctx, "process "+queue, trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(semconv.MessagingSystemKey.String("tidings"), semconv.MessagingDestinationName(queue)))
	defer span.End()
	err := fn(ctx)
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, "not processed")
	}
	return err
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

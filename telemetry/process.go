package telemetry

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// Attributes of our own.
const (
	outcomeKey   = attribute.Key("tidings.outcome")    // of a delivery, in a process span
	attemptKey   = attribute.Key("tidings.attempt")    // number of the first attempt of a delivery, or of one that failed
	retryKindKey = attribute.Key("tidings.retry.kind") // in_place or redelivery
	stateKey     = attribute.Key("tidings.state")      // of messages in a subscription
)

// consumer makes the spans and metrics of a subscription.
type consumer struct {
	*Telemetry
	sub      bus.InstrumentedSubscription
	topics   *destinations
	inFlight atomic.Int64
}

func (t *Telemetry) consumer(system string, sub bus.InstrumentedSubscription) *consumer {
	return &consumer{Telemetry: t, sub: sub, topics: newDestinations(process, system, ofSubscription(sub.Name)...)}
}

// ofSubscription are the attributes of a subscription, which is a consumer group.
func ofSubscription(name string) []attribute.KeyValue {
	return []attribute.KeyValue{semconv.MessagingDestinationSubscriptionName(name), semconv.MessagingConsumerGroupName(name)}
}

// processing is the context of a delivery, with which the steps of it find its span.
type processing struct {
	context.Context //nolint:containedctx // it is a context
	span            trace.Span
	outcome         bus.Outcome // 0 until it is known
	err             error       // why it failed
}

type processingKey struct{}

func (p *processing) Value(key any) any {
	if key == (processingKey{}) {
		return p
	}
	return p.Context.Value(key)
}

// process goes around the handling of a delivery.
func (c *consumer) process(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (out []*message.Message, err error) {
		base := msg.Context()
		d := c.topics.of(transports.Topic(msg))
		start := time.Now()
		p := &processing{}
		p.Context, p.span = c.start(base, msg, d)
		if p.span.IsRecording() {
			p.span.SetAttributes(identity(msg)...)
			p.span.SetAttributes(attemptKey.Int(transports.Attempts(msg) + 1))
		}
		msg.SetContext(p)
		c.inFlight.Add(1)
		returned := false
		defer func() { // also when it panics, or its goroutine ends
			c.inFlight.Add(-1)
			msg.SetContext(base)
			if !returned {
				err = errPanicked
			}
			c.end(p, d, time.Since(start), err)
		}()
		out, err = h(msg)
		returned = true
		return out, err
	}
}

var errPanicked = errors.New("the handling has panicked")

// start starts the span of a delivery. It has no parent but the span that created the
// message: what there is in ctx is that of the bus's own start.
func (c *consumer) start(ctx context.Context, msg *message.Message, d *destination) (context.Context, trace.Span) {
	extracted, sc, created := c.created(ctx, msg)
	switch {
	case !created:
		return c.tracer.Start(ctx, d.span, d.root...)
	case c.cfg.NewTraces:
		link := trace.WithLinks(trace.Link{SpanContext: sc}) // at the start, for the sampler
		return c.tracer.Start(extracted, d.span, append(d.root[:len(d.root):len(d.root)], link)...)
	}
	inside, span := c.tracer.Start(extracted, d.span, d.consumer...)
	if span.IsRecording() {
		span.AddLink(trace.Link{SpanContext: sc})
	}
	return inside, span
}

// end ends the span of a delivery, and measures it.
func (c *consumer) end(p *processing, d *destination, took time.Duration, err error) {
	outcome := p.outcome.String()
	switch {
	case err != nil && errors.Is(err, middleware.ErrInterrupted):
		outcome, p.err = "returned", nil
	case err != nil:
		outcome, p.err = "failed", err
	}
	m := d.metrics
	if p.err != nil {
		m = d.result(p.err)
		fail(p.span, p.err)
	}
	if p.span.IsRecording() {
		p.span.SetAttributes(outcomeKey.String(outcome))
	}
	p.span.End()
	c.metrics.process.Record(p, took.Seconds(), m.record...)
	c.metrics.consumed.Add(p, 1, m.add...)
}

// step takes a step in the life of a delivery.
func (c *consumer) step(ctx context.Context, delivery bus.Delivery) {
	d := c.topics.of(delivery.Metadata.Type)
	p, _ := ctx.Value(processingKey{}).(*processing)
	if p == nil {
		p = &processing{Context: ctx, span: trace.SpanFromContext(ctx)}
	}
	if delivery.Outcome != bus.Retried {
		p.outcome = delivery.Outcome
	}
	switch delivery.Outcome {
	case bus.Handled:
		if at := delivery.Metadata.Time; !at.IsZero() {
			c.metrics.critical.Record(ctx, max(time.Since(at), 0).Seconds(), d.metrics.record...) // clocks differ
		}
	case bus.Retried:
		c.metrics.retries.Add(ctx, 1, d.result(delivery.Err, retryKindKey.String("in_place")).add...)
		if p.span.IsRecording() {
			p.span.AddEvent("tidings.retry", trace.WithAttributes(
				attemptKey.Int(delivery.Metadata.Attempt), semconv.ErrorTypeKey.String(ErrorType(delivery.Err))))
		}
	case bus.Redelivered:
		p.err = delivery.Err
		c.metrics.retries.Add(ctx, 1, d.result(delivery.Err, retryKindKey.String("redelivery")).add...)
	case bus.Poisoned:
		p.err = delivery.Err
		c.metrics.poisoned.Add(ctx, 1, d.result(delivery.Err).add...)
	case bus.Deferred:
		counter := c.metrics.deferred
		if _, unknown := errors.AsType[*bus.UnknownTypeError](delivery.Err); unknown {
			counter = c.metrics.unhandled
		}
		counter.Add(ctx, 1, d.metrics.add...)
	case bus.Deduplicated:
		c.metrics.deduplicated.Add(ctx, 1, d.metrics.add...)
	case bus.Discarded:
		c.metrics.discarded.Add(ctx, 1, d.metrics.add...)
	}
}

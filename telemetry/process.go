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
	"go.opentelemetry.io/otel/trace/noop"

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
	id       consumerID
	topics   *destinations
	inFlight atomic.Int64
}

// consumer returns the consumer of a subscription: one for each name, since what it has
// counted outlives the buses.
func (t *Telemetry) consumer(system string, sub bus.InstrumentedSubscription) *consumer {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := consumerID{system, sub.Name}
	c, ok := t.consumers[id]
	if !ok {
		c = &consumer{Telemetry: t, id: id, topics: newDestinations(process, system, sub.Name)}
		t.consumers[id] = c
	}
	return c
}

// consumerID is what tells consumers apart in metrics.
type consumerID struct{ system, name string }

// processing is the context of a delivery, with which the steps of it find its span. Where
// there is no span, it is the one that leads on to the span that created the event.
type processing struct {
	context.Context //nolint:containedctx // it is a context
	unsampled
	span        trace.Span
	destination *destination
	outcome     bus.Outcome // 0 until it is known
	err         error       // why it failed
	at          time.Time   // of the event, once it was handled
}

// unsampled is a span that is not recorded.
type unsampled struct {
	noop.Span
	created  trace.SpanContext
	provider trace.TracerProvider
}

func (u unsampled) SpanContext() trace.SpanContext { return u.created }

func (u unsampled) TracerProvider() trace.TracerProvider { return u.provider }

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
		p := &processing{destination: d}
		c.start(base, p, msg)
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
			c.end(p, start, err)
		}()
		out, err = h(msg)
		returned = true
		return out, err
	}
}

var errPanicked = errors.New("the handling has panicked")

// start starts the span of a delivery. It has no parent but the span that created the
// message: what there is in ctx is that of the bus's own start.
func (c *consumer) start(ctx context.Context, p *processing, msg *message.Message) {
	d := p.destination
	if c.w3c && !c.cfg.NewTraces && !c.cfg.AskSampler {
		if sc, ok := notSampled(msg.Metadata); ok {
			p.unsampled = unsampled{created: sc, provider: c.cfg.TracerProvider}
			p.span = p
			p.Context = trace.ContextWithSpan(ctx, p)
			return
		}
	}
	extracted, sc, created := c.created(ctx, msg)
	switch {
	case !created:
		p.Context, p.span = d.start(ctx, c.Telemetry, asRoot)
	case c.cfg.NewTraces:
		p.Context, p.span = d.startLinked(extracted, c.Telemetry, trace.Link{SpanContext: sc})
	default:
		p.Context, p.span = d.start(extracted, c.Telemetry, asConsumer)
		if p.span.IsRecording() {
			p.span.AddLink(trace.Link{SpanContext: sc})
		}
	}
}

// end ends the span of a delivery, and measures it.
func (c *consumer) end(p *processing, start time.Time, err error) {
	d, now := p.destination, time.Now()
	outcome := ""
	switch {
	case err != nil && errors.Is(err, middleware.ErrInterrupted):
		outcome, p.err = "returned", nil
	case err != nil:
		outcome, p.err = "failed", err
	}
	if p.err != nil {
		fail(p.span, p.err)
	}
	if p.span.IsRecording() {
		if outcome == "" {
			outcome = p.outcome.String()
		}
		p.span.SetAttributes(outcomeKey.String(outcome))
	}
	p.span.End()
	c.metrics.process.Record(p.Context, now.Sub(start).Seconds(), d.took(p.err)...)
	if !p.at.IsZero() {
		c.metrics.critical.Record(p.Context, max(now.Sub(p.at), 0).Seconds(), d.okBrief...) // clocks differ
	}
	d.count(p.err)
}

// step takes a step in the life of a delivery.
func (c *consumer) step(ctx context.Context, delivery bus.Delivery) {
	p, _ := ctx.Value(processingKey{}).(*processing)
	if p == nil { // out of the course of Process: somebody's middleware has replaced the context
		p = &processing{Context: ctx, span: trace.SpanFromContext(ctx), destination: c.topics.of(delivery.Metadata.Type)}
	}
	d, err := p.destination, delivery.Err
	if delivery.Outcome != bus.Retried {
		p.outcome = delivery.Outcome
	}
	switch delivery.Outcome {
	case bus.Handled:
		p.at = delivery.Metadata.Time
	case bus.Retried:
		c.metrics.retries.Add(ctx, 1, d.step(err, retryKindKey.String("in_place")))
		if p.span.IsRecording() {
			p.span.AddEvent("tidings.retry", trace.WithAttributes(
				attemptKey.Int(delivery.Metadata.Attempt), semconv.ErrorTypeKey.String(ErrorType(err))))
		}
	case bus.Redelivered:
		p.err = err
		c.metrics.retries.Add(ctx, 1, d.step(err, retryKindKey.String("redelivery")))
	case bus.Poisoned:
		p.err = err
		c.metrics.poisoned.Add(ctx, 1, d.step(err))
	case bus.Deferred:
		counter := c.metrics.deferred
		if _, unknown := errors.AsType[*bus.UnknownTypeError](err); unknown {
			counter = c.metrics.unhandled
		}
		counter.Add(ctx, 1, d.step(nil))
	case bus.Deduplicated:
		c.metrics.deduplicated.Add(ctx, 1, d.step(nil))
	case bus.Discarded:
		c.metrics.discarded.Add(ctx, 1, d.step(nil))
	}
}

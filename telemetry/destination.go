package telemetry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// maxTopics bounds the topics that are told apart: a subscription to "#" gets whatever
// types others make up. All beyond are one, otherTopic.
const maxTopics = 1000

const otherTopic = "_OTHER"

// destinations are what is said again and again of an operation on the topics of one
// system, and of one subscription: made once, so that an event costs no attributes.
type destinations struct {
	operation    operation
	system       string
	subscription string // "" for that of a publisher

	last    atomic.Pointer[destination] // the one that was asked for last, which is often the next
	byTopic sync.Map                    // string to *destination
	n       atomic.Int32
	mixed   *destination // of a batch of several topics
	other   *destination
}

// operation is what is done: its name, which is also its type.
type operation string

const (
	create  operation = "create"
	send    operation = "send"
	process operation = "process"
)

func newDestinations(op operation, system, subscription string) *destinations {
	d := &destinations{operation: op, system: system, subscription: subscription}
	d.mixed = d.describe("", "")
	d.other = d.describe(otherTopic, "")
	return d
}

// destination is an operation on a topic.
type destination struct {
	topic string
	span  string               // its name
	attrs []attribute.KeyValue // of a span
	kinds [4]startOptions

	duration []attribute.KeyValue  // attributes of the operation's duration
	brief    []attribute.KeyValue  // those of our own metrics: topic and subscription
	ok       []metric.RecordOption // duration, ready to use
	okBrief  []metric.RecordOption // brief, ready to use

	done   atomic.Int64 // messages sent or consumed
	failed failures     // those that failed
}

// startOptions are those of a span, with its attributes and without: to copy those costs as
// much as to start a span that is not recorded.
type startOptions struct{ whole, bare []trace.SpanStartOption }

// Indexes of destination.kinds.
const (
	asClient = iota
	asProducer
	asConsumer
	asRoot // a consumer without a parent
)

// of returns the destination for a topic.
func (d *destinations) of(topic string) *destination {
	if last := d.last.Load(); last != nil && last.topic == topic {
		return last
	}
	if found, ok := d.byTopic.Load(topic); ok {
		d.last.Store(found.(*destination))
		return found.(*destination)
	}
	if d.n.Add(1) > maxTopics {
		d.n.Add(-1)
		return d.other
	}
	made, loaded := d.byTopic.LoadOrStore(topic, d.describe(topic, topic))
	if loaded { // somebody else was faster
		d.n.Add(-1)
	}
	return made.(*destination)
}

// all calls fn for each destination that there is.
func (d *destinations) all(fn func(*destination)) {
	fn(d.other)
	d.byTopic.Range(func(_, found any) bool {
		fn(found.(*destination))
		return true
	})
}

// describe makes a destination. An empty topic is not mentioned, in the span's name or at
// all.
func (d *destinations) describe(topic, inName string) *destination {
	out := &destination{topic: inName, span: string(d.operation)}
	if inName != "" {
		out.span += " " + inName
	}
	if topic != "" {
		out.brief = append(out.brief, semconv.MessagingDestinationName(topic))
	}
	if d.subscription != "" {
		out.brief = append(out.brief, semconv.MessagingDestinationSubscriptionName(d.subscription))
	}
	out.duration = append(slices.Clone(out.brief),
		semconv.MessagingSystemKey.String(d.system), semconv.MessagingOperationName(string(d.operation)))
	ofSpan := append(slices.Clone(out.duration), semconv.MessagingOperationTypeKey.String(string(d.operation)))
	if d.subscription != "" {
		ofSpan = append(ofSpan, semconv.MessagingConsumerGroupName(d.subscription))
	} else {
		out.duration = ofSpan // the conventions ask for the type here, and not of processing
	}
	if inName != "" && d.system == "rabbitmq" {
		ofSpan = append(slices.Clone(ofSpan), semconv.MessagingRabbitMQDestinationRoutingKey(topic))
	}
	out.ok, out.okBrief = recorded(out.duration), recorded(out.brief)
	out.attrs = ofSpan
	options := func(bare ...trace.SpanStartOption) startOptions {
		return startOptions{bare: bare, whole: append(slices.Clone(bare), trace.WithAttributes(ofSpan...))}
	}
	out.kinds = [...]startOptions{
		asClient:   options(trace.WithSpanKind(trace.SpanKindClient)),
		asProducer: options(trace.WithSpanKind(trace.SpanKindProducer)),
		asConsumer: options(trace.WithSpanKind(trace.SpanKindConsumer)),
		asRoot:     options(trace.WithSpanKind(trace.SpanKindConsumer), trace.WithNewRoot()),
	}
	return out
}

// start starts a span. Under a parent that is not sampled there is none, unless the sampler
// is to be asked: ctx has the parent's context for what comes further in.
func (d *destination) start(ctx context.Context, t *Telemetry, kind int) (context.Context, trace.Span) {
	if t.cfg.AskSampler {
		return t.tracer.Start(ctx, d.span, d.kinds[kind].whole...)
	}
	if parent := trace.SpanContextFromContext(ctx); kind != asRoot && parent.IsValid() && !parent.IsSampled() {
		return ctx, noop.Span{}
	}
	ctx, span := t.tracer.Start(ctx, d.span, d.kinds[kind].bare...)
	if span.IsRecording() {
		span.SetAttributes(d.attrs...)
	}
	return ctx, span
}

// startLinked starts the span of a delivery that begins a trace.
func (d *destination) startLinked(ctx context.Context, t *Telemetry, link trace.Link) (context.Context, trace.Span) {
	options := d.kinds[asRoot].whole
	return t.tracer.Start(ctx, d.span, append(slices.Clip(options), trace.WithLinks(link))...)
}

// count counts a message that was sent or consumed, or failed.
func (d *destination) count(err error) {
	if err == nil {
		d.done.Add(1)
		return
	}
	d.failed.add(ErrorType(err))
}

// took returns the attributes of the duration of what ended with err.
func (d *destination) took(err error) []metric.RecordOption {
	if err == nil {
		return d.ok
	}
	return recorded(withError(d.duration, err))
}

// step returns the attributes of a step in the life of a delivery.
func (d *destination) step(err error, more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributes(withError(slices.Concat(d.brief, more), err)...)
}

func recorded(attrs []attribute.KeyValue) []metric.RecordOption {
	return []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attrs...))}
}

func withError(attrs []attribute.KeyValue, err error) []attribute.KeyValue {
	if err == nil {
		return attrs
	}
	return append(slices.Clip(attrs), semconv.ErrorTypeKey.String(ErrorType(err)))
}

// failures counts by error.type.
type failures struct {
	mu     sync.Mutex // guards byType
	byType map[string]int64
}

// maxErrorTypes bounds the types that are told apart of one destination; the others are
// one, as the conventions call it.
const maxErrorTypes = 50

func (f *failures) add(errorType string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byType == nil {
		f.byType = make(map[string]int64)
	}
	if _, known := f.byType[errorType]; !known && len(f.byType) >= maxErrorTypes {
		errorType = semconv.ErrorTypeOther.Value.AsString()
	}
	f.byType[errorType]++
}

// observe tells how many messages there were.
func (d *destination) observe(o metric.Observer, counter metric.Int64Observable) {
	if n := d.done.Load(); n > 0 {
		o.ObserveInt64(counter, n, metric.WithAttributes(d.duration...))
	}
	d.failed.mu.Lock()
	defer d.failed.mu.Unlock()
	for errorType, n := range d.failed.byType {
		o.ObserveInt64(counter, n, metric.WithAttributes(d.duration...), metric.WithAttributes(semconv.ErrorTypeKey.String(errorType)))
	}
}

// ErrorType returns the error.type of an error: what its ErrorType method says, if it or
// one that it wraps has one; else the Go type of the innermost error, and of joined errors
// that of the first one.
func ErrorType(err error) string {
	if typed, ok := errors.AsType[interface {
		error
		ErrorType() string
	}](err); ok {
		if s := typed.ErrorType(); s != "" {
			return s
		}
	}
	for {
		switch wrapper := err.(type) { //nolint:errorlint // walks the tree by hand
		case interface{ Unwrap() []error }:
			if errs := wrapper.Unwrap(); len(errs) > 0 {
				err = errs[0]
				continue
			}
		case interface{ Unwrap() error }:
			if inner := wrapper.Unwrap(); inner != nil {
				err = inner
				continue
			}
		}
		return fmt.Sprintf("%T", err)
	}
}

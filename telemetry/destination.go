package telemetry

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// maxTopics bounds the topics that are told apart: a subscription to "#" gets whatever
// types others make up. All beyond are one, otherTopic.
const maxTopics = 1000

const otherTopic = "_OTHER"

// destinations are what is said again and again of an operation on the topics of one
// system, and of one subscription: made once, so that an event costs no attributes.
type destinations struct {
	operation operation
	system    string
	more      []attribute.KeyValue // of a subscription

	byTopic sync.Map // string to *destination
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

func newDestinations(op operation, system string, more ...attribute.KeyValue) *destinations {
	d := &destinations{operation: op, system: system, more: more}
	d.mixed = d.describe("", "")
	d.other = d.describe(otherTopic, "")
	return d
}

// destination is an operation on a topic.
type destination struct {
	span    string // its name
	attrs   []attribute.KeyValue
	metrics measurement // of what succeeds

	client, producer, consumer, root []trace.SpanStartOption // for a span of the kind; root is a consumer's without a parent
}

// measurement has the attributes of a measurement, ready to use.
type measurement struct {
	record []metric.RecordOption
	add    []metric.AddOption
}

func measured(attrs ...attribute.KeyValue) measurement {
	set := metric.WithAttributeSet(attribute.NewSet(attrs...))
	return measurement{record: []metric.RecordOption{set}, add: []metric.AddOption{set}}
}

// of returns the destination for a topic.
func (d *destinations) of(topic string) *destination {
	if found, ok := d.byTopic.Load(topic); ok {
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

// describe makes a destination. An empty topic is not mentioned, in the span's name or at
// all.
func (d *destinations) describe(topic, inName string) *destination {
	out := &destination{span: string(d.operation)}
	if inName != "" {
		out.span += " " + inName
	}
	out.attrs = append(out.attrs,
		semconv.MessagingSystemKey.String(d.system),
		semconv.MessagingOperationName(string(d.operation)),
		semconv.MessagingOperationTypeKey.String(string(d.operation)),
	)
	if topic != "" {
		out.attrs = append(out.attrs, semconv.MessagingDestinationName(topic))
	}
	out.attrs = append(out.attrs, d.more...)
	out.metrics = measured(out.attrs...)

	ofSpan := out.attrs
	if inName != "" && d.system == "rabbitmq" {
		ofSpan = append(ofSpan[:len(ofSpan):len(ofSpan)], semconv.MessagingRabbitMQDestinationRoutingKey(topic))
	}
	options := func(kind trace.SpanKind) []trace.SpanStartOption {
		return []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(ofSpan...)}
	}
	out.client, out.producer, out.consumer = options(trace.SpanKindClient), options(trace.SpanKindProducer), options(trace.SpanKindConsumer)
	out.root = append(options(trace.SpanKindConsumer), trace.WithNewRoot())
	return out
}

// result returns the attributes of a measurement of what ended with err.
func (d *destination) result(err error, more ...attribute.KeyValue) measurement {
	if err == nil && len(more) == 0 {
		return d.metrics
	}
	attrs := append(d.attrs[:len(d.attrs):len(d.attrs)], more...)
	if err != nil {
		attrs = append(attrs, semconv.ErrorTypeKey.String(ErrorType(err)))
	}
	return measured(attrs...)
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

package telemetry

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/bus"
)

// scope is the name of the instrumentation library.
const scope = "github.com/gotidings/tidings/telemetry"

// Config configures a [Telemetry]. The zero value uses the global providers.
type Config struct {
	// TracerProvider makes spans. nil means otel.GetTracerProvider().
	TracerProvider trace.TracerProvider

	// MeterProvider makes metrics. nil means otel.GetMeterProvider().
	MeterProvider metric.MeterProvider

	// Propagator writes the context of a span into events and reads it. nil means the
	// W3C trace context. The fields of another one travel as CloudEvents extension
	// attributes, so their names have to be lower-case letters and digits, as those of
	// propagation.Baggage and B3's single header are.
	Propagator propagation.TextMapPropagator

	// NewTraces begins a trace with each delivery, which has a link to the span that
	// created the event. By default that span is also its parent, so that what an event
	// sets off is in one trace, which is sampled or not as a whole.
	NewTraces bool

	// AskSampler is for a sampler that does not follow its parent, such as always_on, or
	// that looks at attributes. Without it, a delivery or a send in a trace that is not
	// sampled has no span, and attributes are set after the start of a span, if it is
	// recorded. With the SDK's default, which follows the parent, that makes no
	// difference but to the costs, of which it is most.
	AskSampler bool

	// NoCreateSpans leaves out the span of each event of a batch: all of them then have
	// the context of the batch's send span.
	NoCreateSpans bool

	// System is messaging.system where the transport does not name its own, see
	// [transports.SystemNamer], such as "kafka". Empty means "tidings".
	System string

	// DepthInterval is how often a transport is asked at most how many messages wait in
	// its subscriptions: when metrics are collected, and the last answer is older. 0
	// means 15 s; a negative one means never.
	DepthInterval time.Duration
}

func (c Config) withDefaults() Config {
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	if c.Propagator == nil {
		c.Propagator = propagation.TraceContext{}
	}
	if c.System == "" {
		c.System = "tidings"
	}
	if c.DepthInterval == 0 {
		c.DepthInterval = 15 * time.Second
	}
	return c
}

// Telemetry makes spans and metrics of buses and outboxes. Make one with [New] and give it
// to each bus, in bus.Config.Instrumentation. Its methods may be called concurrently.
type Telemetry struct {
	cfg     Config
	tracer  trace.Tracer
	metrics instruments
	fields  []string // of the propagator, as keys of a message's metadata
	w3c     bool     // the propagator is the default one, for which there are short cuts

	mu         sync.Mutex // guards what follows
	senders    map[string]*sender
	consumers  map[consumerID]*consumer
	buses      map[*observed]struct{} // that have not ended
	registered metric.Registration    // nil after Close
}

var _ bus.Instrumentation = (*Telemetry)(nil)

// New makes a Telemetry. It returns every fault of cfg in one joined error.
func New(cfg Config) (*Telemetry, error) {
	cfg = cfg.withDefaults()
	var faults []error
	t := &Telemetry{
		cfg:    cfg,
		tracer: cfg.TracerProvider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),

		senders:   make(map[string]*sender),
		consumers: make(map[consumerID]*consumer),
		buses:     make(map[*observed]struct{}),
	}
	_, t.w3c = cfg.Propagator.(propagation.TraceContext)
	for _, field := range cfg.Propagator.Fields() {
		if !attributeName(field) {
			faults = append(faults, fmt.Errorf("the Propagator has the field %q, which can't be a CloudEvents attribute: its name is not made of lower-case letters and digits only", field))
		}
		t.fields = append(t.fields, key(field))
	}
	var err error
	t.metrics, err = newInstruments(cfg.MeterProvider.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL)))
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	in := t.metrics
	if t.registered, err = in.meter.RegisterCallback(t.collect, in.sent, in.consumed, in.inFlight, in.depth, in.poison); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	return t, nil
}

// Close ends what is measured when metrics are collected. It is for tests and programs
// that make several; the end of a program needs none. Shut the meter provider down first,
// so that it collects a last time.
func (t *Telemetry) Close() error {
	t.mu.Lock()
	registered := t.registered
	t.registered = nil
	t.mu.Unlock()
	if registered == nil {
		return nil
	}
	return registered.Unregister()
}

package telemetrytest

import (
	"context"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/telemetry"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type placed struct {
	Order int    `json:"order"`
	Card  string `json:"card"`
}

func (placed) EventType() string { return "order.placed" }

type paid struct {
	Order int `json:"order"`
}

func (paid) EventType() string { return "order.paid" }

// recorder keeps the spans and metrics of a test.
type recorder struct {
	*telemetry.Telemetry
	t       *testing.T
	spans   *tracetest.SpanRecorder
	tracing *sdktrace.TracerProvider
	reader  *sdkmetric.ManualReader
	meters  *sdkmetric.MeterProvider
}

func record(t *testing.T, cfg telemetry.Config) *recorder {
	t.Helper()
	r := &recorder{t: t, spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	r.tracing = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans))
	r.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader))
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = r.tracing
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = r.meters
	}
	var err error
	if r.Telemetry, err = telemetry.New(cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

func openMemory(t *testing.T) *memory.Transport {
	t.Helper()
	transport, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
	return transport
}

// newBus makes a bus of the service "shop" that is watched by r. The test starts and ends
// it.
func (r *recorder) newBus(transport transports.Transport, cfg bus.Config) *bus.Bus {
	r.t.Helper()
	cfg.Source = "shop"
	cfg.Instrumentation = []bus.Instrumentation{r.Telemetry}
	b, err := bus.New(transport, cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func start(t *testing.T, b *bus.Bus) {
	t.Helper()
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shutdown(t, b) })
}

func shutdown(t *testing.T, b *bus.Bus) {
	t.Helper()
	if err := b.Shutdown(context.Background()); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// ended returns the spans of a name that have ended, in that order.
func (r *recorder) ended(name string) (spans []sdktrace.ReadOnlySpan) {
	for _, s := range r.spans.Ended() {
		if s.Name() == name {
			spans = append(spans, s)
		}
	}
	return spans
}

// only returns the spans of a name, of which there must be n.
func (r *recorder) only(name string, n int) []sdktrace.ReadOnlySpan {
	r.t.Helper()
	spans := r.ended(name)
	if len(spans) != n {
		var names []string
		for _, s := range r.spans.Ended() {
			names = append(names, s.Name())
		}
		r.t.Fatalf("%d spans %q, want %d; there are %q", len(spans), name, n, names)
	}
	return spans
}

// attr returns an attribute of a span as text, "" when it has none.
func attr(s sdktrace.ReadOnlySpan, key attribute.Key) string {
	for _, kv := range s.Attributes() {
		if kv.Key == key {
			return kv.Value.String()
		}
	}
	return ""
}

// linked reports whether a span has a link to another one.
func linked(s, to sdktrace.ReadOnlySpan) bool {
	return slices.ContainsFunc(s.Links(), func(l sdktrace.Link) bool { return same(l.SpanContext, to.SpanContext()) })
}

func childOf(s, parent sdktrace.ReadOnlySpan) bool { return same(s.Parent(), parent.SpanContext()) }

func same(a, b trace.SpanContext) bool {
	return a.IsValid() && a.TraceID() == b.TraceID() && a.SpanID() == b.SpanID()
}

func check[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// collect returns the metrics by name.
func (r *recorder) collect() map[string]metricdata.Metrics {
	r.t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.reader.Collect(context.Background(), &all); err != nil {
		r.t.Fatal(err)
	}
	byName := make(map[string]metricdata.Metrics)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			byName[m.Name] = m
		}
	}
	return byName
}

// value returns the sum, the gauge or the count of the points of a metric that have all
// these attributes, and how many points those are.
func value(m metricdata.Metrics, attrs ...attribute.KeyValue) (total float64, points int) {
	has := func(set attribute.Set) bool {
		for _, kv := range attrs {
			if v, ok := set.Value(kv.Key); !ok || v.String() != kv.Value.String() {
				return false
			}
		}
		points++
		return true
	}
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			if has(p.Attributes) {
				total += float64(p.Value)
			}
		}
	case metricdata.Gauge[int64]:
		for _, p := range data.DataPoints {
			if has(p.Attributes) {
				total += float64(p.Value)
			}
		}
	case metricdata.Gauge[float64]:
		for _, p := range data.DataPoints {
			if has(p.Attributes) {
				total += p.Value
			}
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			if has(p.Attributes) {
				total += float64(p.Count)
			}
		}
	}
	return total, points
}

package main

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/telemetry"
)

// sampled is the share of traces that are recorded.
const sampled = 0.01

// telemetryCases measure what telemetry costs, on top of the memory case. Spans are
// exported to nowhere, in batches and by the SDK's defaults; metrics are aggregated and
// read by nobody, as between two scrapes.
func telemetryCases() []benchCase {
	var cases []benchCase
	for _, publishers := range []int{1, 8} {
		add := func(peer, note string, traces, metrics bool) {
			cases = append(cases, benchCase{
				group:   "telemetry",
				variant: fmt.Sprintf("publishers=%d", publishers),
				peer:    peer,
				note:    note,
				prepare: func(_ context.Context, l *ledger) (rig, error) {
					if !traces && !metrics {
						return prepareBus(l, publishers)
					}
					return prepareTelemetry(l, publishers, traces, metrics)
				},
			})
		}
		add(reference, "", false, false)
		add("telemetry", "spans and metrics, 1 % of the traces recorded", true, true)
		add("telemetry-spans", "spans alone, 1 % of the traces recorded", true, false)
		add("telemetry-metrics", "metrics alone", false, true)
	}
	return cases
}

// prepareTelemetry is prepareBus with telemetry.
func prepareTelemetry(l *ledger, publishers int, traces, metrics bool) (rig, error) {
	var tracing trace.TracerProvider = tracenoop.NewTracerProvider()
	var meters metric.MeterProvider = metricnoop.NewMeterProvider()
	var stops []func(context.Context) error
	if traces {
		provider := sdktrace.NewTracerProvider(
			sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(sampled))),
			sdktrace.WithBatcher(nowhere{}))
		tracing, stops = provider, append(stops, provider.Shutdown)
	}
	if metrics {
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
		meters, stops = provider, append(stops, provider.Shutdown)
	}
	tel, err := telemetry.New(telemetry.Config{TracerProvider: tracing, MeterProvider: meters})
	if err != nil {
		return rig{}, err
	}
	r, err := prepareBusWith(l, publishers, bus.Config{Source: "bench", Instrumentation: []bus.Instrumentation{tel}})
	if err != nil {
		return rig{}, err
	}
	closeBus := r.close
	r.close = func() error {
		err := closeBus()
		for _, stop := range stops {
			err = errors.Join(err, stop(context.Background()))
		}
		return err
	}
	return r, nil
}

// nowhere is an exporter that takes no time.
type nowhere struct{}

func (nowhere) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }

func (nowhere) Shutdown(context.Context) error { return nil }

package telemetry

import (
	"errors"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/semconv/v1.43.0/messagingconv"
)

// operationBuckets are those that the semantic conventions recommend for durations of
// messaging operations and of processing, in seconds.
var operationBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}

// criticalBuckets are for times that include redeliveries and outages, in seconds.
var criticalBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 86400}

// instruments are the metrics.
type instruments struct {
	meter metric.Meter

	operation metric.Float64Histogram
	sent      metric.Int64ObservableCounter // of tallies: it costs a tenth of a counter's Add
	consumed  metric.Int64ObservableCounter
	process   metric.Float64Histogram

	critical     metric.Float64Histogram
	retries      metric.Int64Counter
	poisoned     metric.Int64Counter
	deduplicated metric.Int64Counter
	discarded    metric.Int64Counter
	deferred     metric.Int64Counter
	unhandled    metric.Int64Counter

	inFlight metric.Int64ObservableUpDownCounter
	depth    metric.Int64ObservableGauge
	poison   metric.Int64ObservableGauge
}

func newInstruments(m metric.Meter) (in instruments, err error) {
	in.meter = m
	var errs []error
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	gauge := func(name, description string) metric.Int64ObservableGauge {
		g, err := m.Int64ObservableGauge(name, metric.WithUnit("{message}"), metric.WithDescription(description))
		errs = append(errs, err)
		return g
	}

	operation, err := messagingconv.NewClientOperationDuration(m, metric.WithExplicitBucketBoundaries(operationBuckets...))
	errs = append(errs, err)
	sent, err := messagingconv.NewClientSentMessagesObservable(m)
	errs = append(errs, err)
	consumed, err := messagingconv.NewClientConsumedMessagesObservable(m)
	errs = append(errs, err)
	process, err := messagingconv.NewProcessDuration(m, metric.WithExplicitBucketBoundaries(operationBuckets...))
	errs = append(errs, err)
	in.operation, in.sent, in.consumed, in.process = operation.Inst(), sent.Inst(), consumed.Inst(), process.Inst()

	in.critical, err = m.Float64Histogram("tidings.critical_time", metric.WithUnit("s"),
		metric.WithDescription("Time from the event's own time to the end of its handling."),
		metric.WithExplicitBucketBoundaries(criticalBuckets...))
	errs = append(errs, err)
	in.retries = counter("tidings.retries", "{retry}", "Failed attempts that are followed by another one, in place or by redelivery.")
	in.poisoned = counter("tidings.poisoned", "{message}", "Events that were moved to a poison queue.")
	in.deduplicated = counter("tidings.deduplicated", "{message}", "Copies of events that had been handled.")
	in.discarded = counter("tidings.discarded", "{message}", "Events that their handler discarded.")
	in.deferred = counter("tidings.deferred", "{message}", "Deliveries that were put off without an attempt.")
	in.unhandled = counter("tidings.unhandled", "{message}", "Deliveries that were put off because the subscription has no handler for the event's type.")

	in.inFlight, err = m.Int64ObservableUpDownCounter("tidings.in_flight", metric.WithUnit("{message}"),
		metric.WithDescription("Events that are being handled, with those that wait for a retry in place."))
	errs = append(errs, err)
	in.depth = gauge("tidings.subscription.messages", "Messages that a subscription holds, by their state.")
	in.poison = gauge("tidings.poison.messages", "Messages in the poison queue of a subscription.")
	return in, errors.Join(errs...)
}

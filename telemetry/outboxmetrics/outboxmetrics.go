// Package outboxmetrics makes OpenTelemetry metrics of what waits in an outbox, for each
// destination that is known, whether or not its relay runs:
//
//	tidings.outbox.messages    gauge, {message}   events that are committed and not sent
//	tidings.outbox.oldest.age  gauge, s           age of the oldest of them, by the database's clock
//	tidings.outbox.parked      gauge, {message}   events that the destination has refused
//
// with the attribute tidings.outbox.destination. The age is the one to have an alarm for:
// it grows whenever events are not sent, whatever the reason.
//
// It is a package of its own so that package telemetry links no SQL code.
package outboxmetrics

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/gotidings/tidings/outbox"
)

// Config configures [Observe]. The zero value uses the global provider.
type Config struct {
	// MeterProvider makes the metrics. nil means otel.GetMeterProvider().
	MeterProvider metric.MeterProvider

	// Interval is how often the database is asked at most: when metrics are collected,
	// and the last answer is older. 0 means 15 s.
	Interval time.Duration
}

// timeout bounds how long a collection waits for the database.
const timeout = 5 * time.Second

const destinationKey = attribute.Key("tidings.outbox.destination")

// Observe makes the metrics of an outbox, until stop is called. Several processes of one
// database report the same; sum none of these metrics over them.
func Observe(ob *outbox.Outbox, cfg Config) (stop func() error, err error) {
	if ob == nil {
		return nil, errors.New("outboxmetrics: the outbox is nil")
	}
	if cfg.Interval < 0 {
		return nil, fmt.Errorf("outboxmetrics: Interval is %v; it must not be negative", cfg.Interval)
	}
	if cfg.Interval == 0 {
		cfg.Interval = 15 * time.Second
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	meter := cfg.MeterProvider.Meter("github.com/gotidings/tidings/telemetry/outboxmetrics")
	waiting, err1 := meter.Int64ObservableGauge("tidings.outbox.messages", metric.WithUnit("{message}"),
		metric.WithDescription("Events that are committed and not sent."))
	oldest, err2 := meter.Float64ObservableGauge("tidings.outbox.oldest.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest event that is committed and not sent; 0 when there is none."))
	parked, err3 := meter.Int64ObservableGauge("tidings.outbox.parked", metric.WithUnit("{message}"),
		metric.WithDescription("Events that the destination has refused."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("outboxmetrics: %w", err)
	}
	a := &asker{stats: ob.Stats, interval: cfg.Interval}
	registration, err := meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		stats, err := a.ask(ctx)
		for _, s := range stats {
			destination := metric.WithAttributes(destinationKey.String(s.Name))
			o.ObserveInt64(waiting, int64(s.Waiting), destination)
			o.ObserveFloat64(oldest, s.Age.Seconds(), destination)
			o.ObserveInt64(parked, int64(s.Parked), destination)
		}
		return err
	}, waiting, oldest, parked)
	if err != nil {
		return nil, fmt.Errorf("outboxmetrics: %w", err)
	}
	return registration.Unregister, nil
}

// asker asks the database, not too often.
type asker struct {
	stats    func(context.Context) ([]outbox.Stats, error)
	interval time.Duration

	mu   sync.Mutex // guards what follows; held while the database is asked, so that one does at a time
	at   time.Time
	last []outbox.Stats
}

// ask returns the last answer. After an error there is none, rather than an old one that
// looks well, until the next interval.
func (a *asker) ask(ctx context.Context) ([]outbox.Stats, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.at.IsZero() && time.Since(a.at) < a.interval {
		return a.last, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	a.last, err = a.stats(ctx)
	a.at = time.Now()
	return a.last, err
}

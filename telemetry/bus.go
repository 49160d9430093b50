package telemetry

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
)

// Instrument is called by bus.New for each bus that has t in its Config.Instrumentation.
func (t *Telemetry) Instrument(in bus.InstrumentedBus) bus.BusProbe {
	b := &observed{transport: in.Transport, system: t.system(in.Transport), interval: t.cfg.DepthInterval, names: make(map[string]string)}
	t.mu.Lock()
	t.buses[b] = struct{}{}
	t.mu.Unlock()
	return bus.BusProbe{
		Publish: t.sender(in.Transport).middleware,
		Subscription: func(sub bus.InstrumentedSubscription) bus.SubscriptionProbe {
			b.add(sub)
			c := t.consumer(b.system, sub)
			return bus.SubscriptionProbe{Process: c.process, Step: c.step}
		},
		Ended: func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			delete(t.buses, b)
		},
	}
}

// collect observes what is measured when metrics are collected.
func (t *Telemetry) collect(ctx context.Context, o metric.Observer) error {
	t.mu.Lock()
	senders := slices.Collect(maps.Values(t.senders))
	consumers := slices.Collect(maps.Values(t.consumers))
	buses := slices.Collect(maps.Keys(t.buses))
	t.mu.Unlock()
	for _, s := range senders {
		s.sends.all(func(d *destination) { d.observe(o, t.metrics.sent) })
		s.sends.mixed.observe(o, t.metrics.sent)
	}
	for _, c := range consumers {
		c.topics.all(func(d *destination) { d.observe(o, t.metrics.consumed) })
		o.ObserveInt64(t.metrics.inFlight, c.inFlight.Load(), ofSubscription(c.id))
	}
	var errs []error
	for _, b := range buses {
		depths, err := b.ask(ctx)
		if err != nil {
			errs = append(errs, err)
		}
		for name, d := range depths {
			t.observeDepth(o, ofSubscription(consumerID{b.system, name}), d)
		}
	}
	return errors.Join(errs...)
}

func ofSubscription(id consumerID) metric.MeasurementOption {
	return metric.WithAttributes(semconv.MessagingSystemKey.String(id.system), semconv.MessagingDestinationSubscriptionName(id.name))
}

func (t *Telemetry) observeDepth(o metric.Observer, subscription metric.ObserveOption, d transports.Depth) {
	for _, of := range []struct {
		state string
		n     int
	}{{"ready", d.Ready}, {"delayed", d.Delayed}, {"in_flight", d.InFlight}} {
		if of.n != transports.UnknownDepth {
			o.ObserveInt64(t.metrics.depth, int64(of.n), subscription, metric.WithAttributes(stateKey.String(of.state)))
		}
	}
	if d.Poisoned != transports.UnknownDepth {
		o.ObserveInt64(t.metrics.poison, int64(d.Poisoned), subscription)
	}
}

// observed is a bus whose subscriptions are looked at when metrics are collected.
type observed struct {
	transport transports.Transport
	system    string
	interval  time.Duration

	mu    sync.Mutex        // guards names
	names map[string]string // at the broker, by name in metrics

	asking sync.Mutex // guards what follows; held while the transport is asked, so that one does at a time
	asked  time.Time
	depths map[string]transports.Depth // by name in metrics
}

// add adds a subscription. What is ephemeral is this process's own, which in_flight tells.
func (b *observed) add(sub bus.InstrumentedSubscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !sub.Ephemeral {
		b.names[sub.Name] = sub.FullName
	}
}

// depthTimeout bounds how long a collection waits for the transport: scrapers wait for 10 s
// by default.
const depthTimeout = 5 * time.Second

// ask returns how much the subscriptions hold, as of the last time that the transport was
// asked. What it could not tell is missing until the next interval, rather than an old
// number that looks well; and so a broker that does not answer holds up one collection in
// an interval, and not each.
func (b *observed) ask(ctx context.Context) (map[string]transports.Depth, error) {
	reporter, ok := b.transport.(transports.DepthReporter)
	if !ok || b.interval < 0 {
		return nil, nil
	}
	b.asking.Lock()
	defer b.asking.Unlock()
	if !b.asked.IsZero() && time.Since(b.asked) < b.interval {
		return b.depths, nil // the error was told
	}
	ctx, cancel := context.WithTimeout(ctx, depthTimeout)
	defer cancel()
	depths := make(map[string]transports.Depth)
	var errs []error
	b.mu.Lock()
	names := maps.Clone(b.names)
	b.mu.Unlock()
	for name, fullName := range names {
		d, err := reporter.Depth(ctx, fullName)
		switch {
		case err == nil:
			depths[name] = d
		case !errors.Is(err, transports.ErrNoSubscription):
			errs = append(errs, err)
		}
	}
	b.asked, b.depths = time.Now(), depths
	return depths, errors.Join(errs...)
}

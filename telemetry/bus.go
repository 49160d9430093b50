package telemetry

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
)

// Instrument is called by bus.New for each bus that has t in its Config.Instrumentation.
func (t *Telemetry) Instrument(in bus.InstrumentedBus) bus.BusProbe {
	b := &observed{Telemetry: t, transport: in.Transport, system: t.system(in.Transport), consumers: make(map[string]*consumer)}
	return bus.BusProbe{Publish: t.sender(in.Transport).middleware, Subscription: b.subscription, Ended: b.ended}
}

// observed is a bus whose subscriptions are looked at when metrics are collected.
type observed struct {
	*Telemetry
	transport transports.Transport
	system    string

	mu         sync.Mutex           // guards what follows
	consumers  map[string]*consumer // by name at the broker
	registered metric.Registration  // nil until there is a subscription

	asking sync.Mutex // held while the transport is asked, so that one does at a time; guards what follows
	asked  time.Time
	depths map[string]transports.Depth // by name at the broker
}

// subscription makes the probe of a subscription.
func (b *observed) subscription(sub bus.InstrumentedSubscription) bus.SubscriptionProbe {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, again := b.consumers[sub.FullName]
	if !again {
		c = b.consumer(b.system, sub)
		b.consumers[sub.FullName] = c
	}
	if b.registered == nil {
		in := b.metrics
		var err error
		b.registered, err = in.meter.RegisterCallback(b.collect, in.inFlight, in.depth, in.poison)
		if err != nil { // it says which instrument is not of this meter, and all of them are
			b.registered = nil
		}
	}
	return bus.SubscriptionProbe{Process: c.process, Step: c.step}
}

func (b *observed) ended() {
	b.mu.Lock()
	registered := b.registered
	b.registered = nil
	b.mu.Unlock()
	if registered != nil {
		_ = registered.Unregister() // there is nothing to do about it
	}
}

// collect observes what is measured when metrics are collected.
func (b *observed) collect(ctx context.Context, o metric.Observer) error {
	b.mu.Lock()
	consumers := make([]*consumer, 0, len(b.consumers))
	for _, c := range b.consumers {
		consumers = append(consumers, c)
	}
	b.mu.Unlock()
	depths, err := b.askDepths(ctx, consumers)
	for _, c := range consumers {
		attrs := append([]attribute.KeyValue{semconv.MessagingSystemKey.String(b.system)}, ofSubscription(c.sub.Name)...)
		set := metric.WithAttributes(attrs...)
		o.ObserveInt64(b.metrics.inFlight, c.inFlight.Load(), set)
		d, known := depths[c.sub.FullName]
		if !known {
			continue
		}
		for _, of := range []struct {
			state string
			n     int
		}{{"ready", d.Ready}, {"delayed", d.Delayed}, {"in_flight", d.InFlight}} {
			if of.n != transports.UnknownDepth {
				o.ObserveInt64(b.metrics.depth, int64(of.n), set, metric.WithAttributes(stateKey.String(of.state)))
			}
		}
		if d.Poisoned != transports.UnknownDepth {
			o.ObserveInt64(b.metrics.poison, int64(d.Poisoned), set)
		}
	}
	return err
}

// depthTimeout bounds how long a collection waits for the transport: scrapers wait for 10 s
// by default.
const depthTimeout = 5 * time.Second

// askDepths returns how much the subscriptions hold, as of the last time that the transport
// was asked. What it could not tell is missing, and is asked for in the next interval.
func (b *observed) askDepths(ctx context.Context, consumers []*consumer) (map[string]transports.Depth, error) {
	reporter, ok := b.transport.(transports.DepthReporter)
	if !ok || b.cfg.DepthInterval < 0 {
		return nil, nil
	}
	b.asking.Lock()
	defer b.asking.Unlock()
	if !b.asked.IsZero() && time.Since(b.asked) < b.cfg.DepthInterval {
		return b.depths, nil // the error was told
	}
	ctx, cancel := context.WithTimeout(ctx, depthTimeout)
	defer cancel()
	depths := make(map[string]transports.Depth)
	var errs []error
	for _, c := range consumers {
		d, err := reporter.Depth(ctx, c.sub.FullName)
		switch {
		case err == nil:
			depths[c.sub.FullName] = d
		case !errors.Is(err, transports.ErrNoSubscription):
			errs = append(errs, err)
		}
	}
	b.asked, b.depths = time.Now(), depths
	return depths, errors.Join(errs...)
}

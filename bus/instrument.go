package bus

import (
	"context"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Instrumentation watches what a bus does, as package telemetry does for OpenTelemetry.
// A bus without any pays nothing for it.
type Instrumentation interface {
	// Instrument is called once, by New.
	Instrument(bus InstrumentedBus) BusProbe
}

// InstrumentedBus is what an [Instrumentation] is told of a bus.
type InstrumentedBus struct {
	Service   string
	Transport transports.Transport // which it may ask for its capabilities
}

// BusProbe is called by a bus. Each of its fields may be nil.
type BusProbe struct {
	// Publish goes around publishing, outside of Config.PublishMiddleware.
	Publish PublishMiddleware

	// Subscription is called by Start for each subscription, again when Start is
	// called again after an error.
	Subscription func(s InstrumentedSubscription) SubscriptionProbe

	// Ended is called once, when the last delivery has ended, before Wait returns.
	Ended func()
}

// InstrumentedSubscription is what an [Instrumentation] is told of a subscription.
type InstrumentedSubscription struct {
	Name      string // with the service, without what makes an ephemeral one unique: there are few of them
	FullName  string // at the broker
	Ephemeral bool
}

// SubscriptionProbe is called for the deliveries of a subscription. Each of its fields
// may be nil.
type SubscriptionProbe struct {
	// Process goes around the handling of a delivery, inside of the pause gate and outside
	// of logging and all that decides what becomes of the event. An error that comes out
	// there sends the event back; whether it was handled or poisoned is told by Step.
	Process message.HandlerMiddleware

	// Step is called with each step in the life of a delivery, as [Config.OnDelivery]
	// is, under the same conditions. ctx is derived from that of Process, if the step is
	// in its course.
	Step func(ctx context.Context, d Delivery)
}

// instrument lets the instrumentations of the configuration have their probes.
func (b *Bus) instrument() {
	for _, in := range b.cfg.Instrumentation {
		b.probes = append(b.probes, in.Instrument(InstrumentedBus{Service: b.cfg.Service, Transport: b.transport}))
	}
	for _, p := range slices.Backward(b.probes) {
		if p.Publish != nil {
			b.send = p.Publish(b.send)
		}
	}
}

// attach gets the subscription's probes and returns what goes around its deliveries.
func (s *Subscription) attach() (process []message.HandlerMiddleware) {
	s.steps = nil
	for _, p := range s.bus.probes {
		if p.Subscription == nil {
			continue
		}
		probe := p.Subscription(InstrumentedSubscription{
			Name: s.bus.cfg.Service + "." + s.name, FullName: s.fullName, Ephemeral: s.settings.ephemeral,
		})
		if probe.Process != nil {
			process = append(process, probe.Process)
		}
		if probe.Step != nil {
			s.steps = append(s.steps, probe.Step)
		}
	}
	return process
}

package bustest

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// idleTimeout is how long Idle waits before it calls the test failed: real time
// outside of a synctest bubble, virtual time in it, where the longest default retry
// must fit.
const (
	idleTimeout        = 30 * time.Second
	virtualIdleTimeout = 48 * time.Hour
)

// Bus is a bus under test, on a memory broker of its own.
type Bus struct {
	*bus.Bus
	Broker    *memory.Broker    // for further buses: memory.Broker.Connect
	Transport *memory.Transport // of Bus

	t testing.TB

	mu         sync.Mutex // guards what follows
	published  []bus.Raw
	deliveries []bus.Delivery
}

// New makes a bus that ends with the test. A Config without a Source gets "test".
// OnDelivery, PublishMiddleware and Middleware of cfg work as usual.
func New(tb testing.TB, cfg bus.Config, faults ...Fault) *Bus {
	tb.Helper()
	broker, err := memory.NewBroker(memory.Config{})
	if err != nil {
		tb.Fatalf("bustest: %v", err)
	}
	b := &Bus{Broker: broker, Transport: broker.Connect(), t: tb}
	if cfg.Source == "" {
		cfg.Source = "test"
	}
	onDelivery := cfg.OnDelivery
	cfg.OnDelivery = func(d bus.Delivery) {
		b.note(d)
		if onDelivery != nil {
			onDelivery(d)
		}
	}
	cfg.PublishMiddleware = append(slices.Clone(cfg.PublishMiddleware), b.notePublished)
	p := &plan{instead: make(map[attempt]handling), seen: make(map[string]int)}
	for _, fault := range faults {
		fault.plan(p)
	}
	if p.twice {
		cfg.PublishMiddleware = append(cfg.PublishMiddleware, publishTwice)
	}
	cfg.Middleware = append(slices.Clone(cfg.Middleware), p.middleware(cmp.Or(cfg.Service, cfg.Source)))
	b.Bus, err = bus.New(b.Transport, cfg)
	if err != nil {
		tb.Fatalf("bustest: %v", err)
	}
	tb.Cleanup(func() {
		if err := b.Shutdown(context.Background()); err != nil {
			tb.Errorf("bustest: shutdown: %v", err)
		}
		if err := b.Transport.Close(); err != nil {
			tb.Errorf("bustest: close: %v", err)
		}
	})
	return b
}

// Start starts the bus; the test ends when it can't.
func (b *Bus) Start() {
	b.t.Helper()
	if err := b.Bus.Start(b.t.Context()); err != nil {
		b.t.Fatalf("bustest: start: %v", err)
	}
}

// Publish publishes events, each for itself; the test ends when one can't be
// published. Errors of publishing are tested with b.Bus.Publish.
func (b *Bus) Publish(all ...any) {
	b.t.Helper()
	for _, event := range all {
		if err := b.Bus.Publish(b.t.Context(), event); err != nil {
			b.t.Fatalf("bustest: %v", err)
		}
	}
}

// Idle waits until nothing is left to do: every event is handled, discarded or
// poisoned, those that handlers published included, and none waits for a retry. The
// test ends when that takes more than 30 seconds, or two days of virtual time.
func (b *Bus) Idle() {
	b.t.Helper()
	timeout := idleTimeout
	if virtual() {
		timeout = virtualIdleTimeout
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), timeout)
	defer cancel()
	if err := b.Broker.WaitIdle(ctx); err != nil {
		b.t.Fatalf("bustest: the bus is not idle after %v: %v", timeout, err)
	}
}

// virtual reports whether time is that of a synctest bubble, which begins in the
// year 2000.
func virtual() bool { return time.Now().Year() < 2020 }

// Published returns what was published so far, by the test and by handlers, in order.
func (b *Bus) Published() []bus.Raw {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.published)
}

// Published returns the published events of one type that is encoded as JSON.
func Published[E events.Event](b *Bus) []E {
	b.t.Helper()
	var zero E
	var out []E
	for _, raw := range b.Published() {
		if raw.Metadata.Type != zero.EventType() {
			continue
		}
		var event E
		if err := json.Unmarshal(raw.Data, &event); err != nil {
			b.t.Fatalf("bustest: published %s: %v", raw.Metadata.Type, err)
		}
		out = append(out, event)
	}
	return out
}

// Deliveries returns what happened to the events of a subscription so far, in order.
func (b *Bus) Deliveries(subscription string) []bus.Delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []bus.Delivery
	for _, d := range b.deliveries {
		if d.Subscription == subscription {
			out = append(out, d)
		}
	}
	return out
}

// Outcomes returns the outcomes of [Bus.Deliveries].
func (b *Bus) Outcomes(subscription string) []bus.Outcome {
	var out []bus.Outcome
	for _, d := range b.Deliveries(subscription) {
		out = append(out, d.Outcome)
	}
	return out
}

// Poisoned returns the poisoned events of a subscription, oldest first.
func (b *Bus) Poisoned(subscription string) []transports.Poisoned {
	b.t.Helper()
	var out []transports.Poisoned
	for p, err := range b.Bus.Poisoned(b.t.Context(), subscription) {
		if err != nil {
			b.t.Fatalf("bustest: %v", err)
		}
		out = append(out, p)
	}
	return out
}

func (b *Bus) note(d bus.Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deliveries = append(b.deliveries, d)
}

// notePublished is publish middleware, the innermost one.
func (b *Bus) notePublished(next bus.PublishFunc) bus.PublishFunc {
	return func(ctx context.Context, batch []transports.Outgoing) error {
		raws := make([]bus.Raw, len(batch))
		for i, out := range batch { // before it is given away
			raws[i] = bus.Raw{
				Metadata: *events.DecodeMetadata(out.Message.UUID, out.Message.Metadata),
				Data:     slices.Clone(out.Message.Payload),
			}
		}
		err := next(ctx, batch)
		if err == nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.published = append(b.published, raws...)
		}
		return err
	}
}

package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// Bus publishes events to a transport and delivers them to subscriptions. Make
// one with [New]. Its methods may be called concurrently.
type Bus struct {
	cfg       Config
	transport transports.Transport
	log       *slog.Logger
	lines     *middleware.LogLimiter // of what goes wrong with deliveries
	host      string
	encoder   *Encoder
	send      PublishFunc // through the publish middleware to the transport
	probes    []BusProbe
	quietly   sync.Once

	mu     sync.Mutex // guards what follows
	state  state
	subs   []*Subscription
	byName map[string]*Subscription
	faults []error // of configuration; reported by Start and Publish

	run life
}

// state is where a bus is in its life.
//
//	configuring ──Start──► starting ──► running ──Shutdown, or a lost subscription──► stopping ──► ended
//	     ▲                    │ error
//	     └────────────────────┘
//	configuring ──Shutdown──► ended
type state int

const (
	configuring state = iota
	starting
	running
	stopping
	ended
)

// New makes a bus on a transport, which remains the caller's: it can be shared,
// and is closed by the caller after Shutdown. New returns every fault of cfg in
// one joined error.
func New(t transports.Transport, cfg Config) (*Bus, error) {
	if t == nil {
		return nil, errors.New("bus: the transport is nil")
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	cfg = cfg.withDefaults(t)
	host, _ := os.Hostname() // empty when unknown, which it may be: it only informs
	b := &Bus{
		cfg:       cfg,
		transport: t,
		log:       cfg.Logger,
		lines:     middleware.NewLogLimiter(middleware.LogLimiterConfig{Logger: cfg.Logger, Burst: cfg.LogBurst, Interval: cfg.LogInterval}),
		host:      host,
		encoder:   newEncoder(cfg.Source, cfg.Codecs),
		byName:    make(map[string]*Subscription),
		run:       newLife(),
	}
	b.send = b.toTransport
	if cfg.StructuredMode {
		b.send = Structured(b.send)
	}
	for _, wrap := range slices.Backward(cfg.PublishMiddleware) {
		b.send = wrap(b.send)
	}
	b.instrument()
	return b, nil
}

// fault notes a fault of configuration.
func (b *Bus) fault(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, err)
}

// Subscription returns a new subscription without handlers, for [On]. Its name
// is its durable identity, together with Config.Service: events wait under it
// while no process runs. Faults are reported by Start. It panics when the bus was
// started: what is published in between would be lost.
func (b *Bus) Subscription(name string, opts ...SubscribeOption) *Subscription {
	s := &Subscription{
		bus:      b,
		name:     name,
		fullName: b.cfg.Service + "." + name,
		settings: settings{concurrency: b.cfg.Concurrency, retry: b.cfg.Retry, timeout: b.cfg.Timeout},
		routes:   make(map[string]route),
	}
	for _, opt := range opts {
		opt.apply(&s.settings)
	}
	s.settings.retry = s.settings.retry.withDefaults()
	if s.settings.ephemeral {
		s.fullName += "." + events.NewID() // each replica has its own
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != configuring {
		panic("bus: subscription " + name + " comes after Start")
	}
	b.subs = append(b.subs, s)
	if _, taken := b.byName[name]; !taken {
		b.byName[name] = s
	} else {
		b.faults = append(b.faults, fmt.Errorf("subscription name %q is used twice; each subscription needs a name of its own", name))
	}
	return s
}

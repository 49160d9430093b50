package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// Config configures a [Bus]. Source is required; the rest has defaults.
type Config struct {
	// Source is the CloudEvents source of the events that this bus publishes: a
	// URI-reference, such as "shop" or "https://example.com/shop".
	Source string

	// Service begins the names of the bus's subscriptions at the broker, followed
	// by a dot: subscription "audit" of service "shop" is "shop.audit". All
	// replicas of a service use the same. It is also recorded with poisoned events.
	// Empty means Source.
	Service string

	// Codecs read and write events' data. An event is written by the first one that
	// encodes its type, see [SelectiveCodec], and read by the first one that accepts
	// its content type. None means [JSON].
	Codecs []Codec

	// StructuredMode publishes events in the structured mode of CloudEvents, the
	// attributes and the data in one JSON object, [events.JSONFormat], for services
	// that want it so. The message's metadata has the attributes as well, so nothing
	// changes for transports and for subscriptions: every bus reads both modes.
	StructuredMode bool

	// Concurrency is how many events a subscription handles at a time unless it
	// says otherwise. 0 means 16.
	Concurrency int

	// Retry is the retry policy of subscriptions that have none of their own.
	Retry RetryPolicy

	// Timeout ends the context of a handler that takes longer, unless its
	// subscription says otherwise. 0 means never.
	Timeout time.Duration

	// Dedup remembers which events each subscription has handled. nil means a
	// [middleware.MemoryDedup] on a transport that forgets as well, such as memory,
	// and no deduplication on a durable one, which Start warns of.
	Dedup middleware.DedupStore

	// AllowVolatileDedup consents to a Dedup store in memory on a durable
	// transport: a restart forgets what was handled, and replicas do not know of
	// each other.
	AllowVolatileDedup bool

	// ShutdownTimeout is how long handlers in flight may take at shutdown before
	// their contexts are cancelled. 0 means 30 s.
	ShutdownTimeout time.Duration

	// PublishMiddleware wraps publishing, the first one outermost.
	PublishMiddleware []PublishMiddleware

	// Middleware goes around the handlers of every subscription, inside the bus's own
	// and outside the subscription's, [Use]; the first one outermost. It sees each
	// attempt.
	Middleware []message.HandlerMiddleware

	// OnDelivery, if set, is called with each step in the life of a delivery, for
	// counting. It is called concurrently, on the delivery's path: it must be quick
	// and must not block.
	OnDelivery func(Delivery)

	// Instrumentation watches what the bus does, for telemetry; the first one
	// outermost.
	Instrumentation []Instrumentation

	// Logger takes what an operator should know: never payloads. nil means to
	// discard.
	Logger *slog.Logger

	// LogBurst is how many lines of one fault of a subscription are logged in a
	// LogInterval; the rest of them is counted, and one line says how many there were.
	// 0 means 10 in 10 s; a negative LogBurst logs every line.
	LogBurst    int
	LogInterval time.Duration
}

// RetryPolicy says how often and when an event is tried again: first a few
// quick attempts in place, then delayed redeliveries that the transport keeps,
// each again with the quick attempts. When all are used up the event is
// poisoned. The zero value is the default policy.
type RetryPolicy struct {
	// Attempts is the most calls of the handler in one delivery. 0 means 3; 1
	// means that every retry is a redelivery.
	Attempts int

	// MinDelay and MaxDelay bound the back-off between attempts in place: a random
	// time up to MinDelay, doubled each time up to MaxDelay. 0 means 20 ms and 1 s.
	MinDelay, MaxDelay time.Duration

	// Redeliveries are the delays before each redelivery. nil means 1 s, 5 s, 30 s,
	// 2 min and 10 min; an empty slice means none.
	Redeliveries []time.Duration
}

var defaultRedeliveries = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute}

// NoRetry is the policy of an event that is poisoned at its first failure.
func NoRetry() RetryPolicy { return RetryPolicy{Attempts: 1, Redeliveries: []time.Duration{}} }

func (p RetryPolicy) withDefaults() RetryPolicy {
	if p.Attempts == 0 {
		p.Attempts = 3
	}
	if p.MinDelay == 0 {
		p.MinDelay = 20 * time.Millisecond
	}
	if p.MaxDelay == 0 {
		p.MaxDelay = max(time.Second, p.MinDelay)
	}
	if p.Redeliveries == nil {
		p.Redeliveries = defaultRedeliveries
	}
	return p
}

// longest returns how long an event can be on its way between its first delivery
// and its last, the handler's own time aside.
func (p RetryPolicy) longest() time.Duration {
	inPlace := time.Duration(p.Attempts-1) * p.MaxDelay
	total := inPlace
	for _, d := range p.Redeliveries {
		total += d + inPlace
	}
	return total
}

// waits is how long an event waits for its redeliveries together.
func (p RetryPolicy) waits() (total time.Duration) {
	for _, d := range p.Redeliveries {
		total += d
	}
	return total
}

func (p RetryPolicy) validate(of string) error {
	var faults []error
	if p.Attempts < 1 {
		faults = append(faults, fmt.Errorf("%s: Retry.Attempts is %d; it takes at least 1, or 0 for the default", of, p.Attempts))
	}
	if p.MinDelay < 0 || p.MaxDelay < p.MinDelay {
		faults = append(faults, fmt.Errorf("%s: Retry.MinDelay is %v and MaxDelay is %v; the first must not be negative or more than the second", of, p.MinDelay, p.MaxDelay))
	}
	for i, d := range p.Redeliveries {
		if d < 0 {
			faults = append(faults, fmt.Errorf("%s: Retry.Redeliveries[%d] is %v; it must not be negative", of, i, d))
		}
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults(t transports.Transport) Config {
	if c.Service == "" {
		c.Service = c.Source
	}
	if len(c.Codecs) == 0 {
		c.Codecs = []Codec{JSON{}}
	}
	if c.Concurrency == 0 {
		c.Concurrency = 16
	}
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if _, volatile := t.(transports.Volatile); volatile && c.Dedup == nil {
		c.Dedup, _ = middleware.NewMemoryDedup(middleware.MemoryDedupConfig{}) // the zero config has no faults
	}
	c.Retry = c.Retry.withDefaults()
	return c
}

func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	faults = append(faults, validateEncoding(c.Source, c.Codecs)...)
	for i, m := range c.PublishMiddleware {
		if m == nil {
			fault("PublishMiddleware[%d] is nil", i)
		}
	}
	for i, m := range c.Middleware {
		if m == nil {
			fault("Middleware[%d] is nil", i)
		}
	}
	for i, in := range c.Instrumentation {
		if in == nil {
			fault("Instrumentation[%d] is nil", i)
		}
	}
	if c.LogInterval < 0 {
		fault("LogInterval is %v; it must not be negative", c.LogInterval)
	}
	if c.Concurrency < 0 {
		fault("Concurrency is %d; it takes at least 1, or 0 for the default", c.Concurrency)
	}
	if c.Timeout < 0 {
		fault("Timeout is %v; it must not be negative", c.Timeout)
	}
	if c.ShutdownTimeout < 0 {
		fault("ShutdownTimeout is %v; it must not be negative", c.ShutdownTimeout)
	}
	if err := c.Retry.withDefaults().validate("Config"); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// PublishFunc sends a batch on its way to the transport, waiting as
// [transports.BatchPublisher] does.
type PublishFunc func(ctx context.Context, batch []transports.Outgoing) error

// PublishMiddleware wraps publishing. It may change the messages before it calls next,
// which gives them away, so that to call next again takes copies. It must return next's
// error if it can't mend it.
type PublishMiddleware func(next PublishFunc) PublishFunc

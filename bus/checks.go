package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/gotidings/tidings/transports"
)

// minLease is the shortest lease of a deduplication claim: it is renewed three
// times as often, over a network, beside a garbage collector.
const minLease = time.Second

// check returns every fault for which Start must refuse, and warns of what is
// doubtful. Called with mu held.
func (b *Bus) check() error {
	faults := append([]error(nil), b.faults...)
	for _, s := range b.subs {
		if s.name == "" {
			faults = append(faults, errors.New("a subscription's name is empty; it is the durable identity under which events wait"))
			continue
		}
		faults = append(faults, s.check()...)
		faults = append(faults, s.checkDelays()...)
	}
	if len(b.subs) > 0 {
		faults = append(faults, b.checkDedup()...)
		faults = append(faults, b.checkOwnDedup()...)
	}
	if len(faults) > 0 {
		return fmt.Errorf("bus: %w", errors.Join(faults...))
	}
	b.warn()
	return nil
}

// faultError joins the faults of configuration. Called with mu held.
func (b *Bus) faultError() error { return fmt.Errorf("bus: %w", errors.Join(b.faults...)) }

func (s *Subscription) check() []error {
	faults := append(s.settings.validate(s.name), s.checkFallbacks()...)
	if len(s.patterns) == 0 {
		return append(faults, fmt.Errorf("subscription %q receives nothing; add a handler with bus.On, or patterns to SubscribeRaw", s.name))
	}
	// The transport's own rules: control characters, malformed patterns. It is
	// given a concurrency that is right, since the settings' fault was told already.
	if err := (transports.Subscription{Name: s.fullName, Topics: s.patterns, Concurrency: 1}).Validate(); err != nil {
		faults = append(faults, err)
	}
	return faults
}

// checkDelays finds redeliveries that the transport would refuse. Those of an ordered
// subscription wait in place, see warn.
func (s *Subscription) checkDelays() (faults []error) {
	limiter, ok := s.bus.transport.(transports.DelayLimiter)
	if !ok || s.settings.ordered {
		return nil
	}
	for i, d := range s.settings.retry.Redeliveries {
		if longest := limiter.LongestDelay(); d > longest {
			faults = append(faults, fmt.Errorf("subscription %q: Retry.Redeliveries[%d] is %v; the transport delays for %v at most", s.name, i, d, longest))
		}
	}
	return faults
}

// checkDedup finds deduplication stores that would forget too early.
func (b *Bus) checkDedup() (faults []error) {
	store := b.cfg.Dedup
	if store == nil {
		return nil
	}
	_, forgets := store.(transports.Volatile)
	_, volatile := b.transport.(transports.Volatile)
	if forgets && !volatile && !b.cfg.AllowVolatileDedup {
		faults = append(faults, errors.New("Config.Dedup is a store in memory on a durable transport: it forgets at a restart what was handled, and replicas do not share it; use a durable store, or set Config.AllowVolatileDedup"))
	}
	if lease := store.Lease(); lease != 0 && lease < minLease {
		faults = append(faults, fmt.Errorf("Config.Dedup has a lease of %v, too short to be renewed in time; it takes at least %v", lease, minLease))
	}
	for _, s := range b.subs {
		if longest := s.settings.retry.longest(); !s.settings.noDedup && store.Retention() < longest {
			faults = append(faults, fmt.Errorf("subscription %q retries for up to %v but Config.Dedup remembers for %v: a copy that comes back later would be handled twice; lengthen the store's retention or shorten Retry.Redeliveries", s.name, longest, store.Retention()))
		}
	}
	return faults
}

// checkOwnDedup finds handlers whose own deduplication would forget too early.
func (b *Bus) checkOwnDedup() (faults []error) {
	for _, s := range b.subs {
		own, longest := s.settings.ownDedup, s.settings.retry.longest()
		if own != nil && own.Retention() < longest {
			faults = append(faults, fmt.Errorf("subscription %q retries for up to %v but its own deduplication remembers for %v: a copy that comes back later would be handled twice; lengthen the retention or shorten Retry.Redeliveries", s.name, longest, own.Retention()))
		}
	}
	return faults
}

// warn logs what works, though perhaps not as meant.
func (b *Bus) warn() {
	if len(b.subs) == 0 {
		return
	}
	if b.cfg.Dedup == nil && slices.ContainsFunc(b.subs, func(s *Subscription) bool { return s.settings.ownDedup == nil && !s.settings.noDedup }) {
		b.log.Warn("no deduplication: an event that is published or delivered twice is handled twice; set Config.Dedup")
	}
	if _, ok := b.transport.(transports.Requeuer); !ok {
		b.log.Warn("the transport can't delay a redelivery: failed events wait in place and hold up others")
	}
	if _, ok := b.transport.(transports.PoisonQueue); !ok {
		b.log.Warn("the transport has no poison queues: poisoned events are published to the topic poison.<subscription>, which needs a subscription to keep them")
	}
	_, requeues := b.transport.(transports.Requeuer)
	for _, s := range b.subs {
		if wait := s.settings.retry.waits(); wait > inPlaceLimit && (s.settings.ordered || !requeues) {
			b.log.Warn("an event is poisoned before its retries are used up: it waits for them in place, which has a limit; shorten Retry.Redeliveries",
				slog.String("subscription", s.fullName), slog.Duration("redeliveries", wait), slog.Duration("limit", inPlaceLimit))
		}
		if s.settings.timeout > b.cfg.ShutdownTimeout {
			b.log.Warn("a handler may take longer than the shutdown waits: it is interrupted and its event delivered again",
				slog.String("subscription", s.fullName), slog.Duration("timeout", s.settings.timeout), slog.Duration("shutdown_timeout", b.cfg.ShutdownTimeout))
		}
	}
}

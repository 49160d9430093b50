package bus

import (
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
)

// settings are what options set.
type settings struct {
	concurrency   int
	retry         RetryPolicy
	timeout       time.Duration
	ordered       bool
	ephemeral     bool
	interruption  func(bool)
	noDedup       bool
	ownDedup      DedupRetention // of a handler that deduplicates itself
	pauseOnPoison bool
	breaker       circuitbreaker.CircuitBreaker[any]
	breakers      int  // how many were given
	observed      bool // the breaker, by clients of the handler
	limiter       ratelimiter.RateLimiter[any]
	limited       bool // a limiter was given
	policies      []failsafe.Policy[any]
	fallbacks     []fallbackOption
	middleware    []message.HandlerMiddleware
}

// SubscribeOption is a setting of one subscription.
type SubscribeOption interface{ apply(s *settings) }

type subscribeOption func(*settings)

func (o subscribeOption) apply(s *settings) { o(s) }

// Concurrency sets how many events the subscription handles at a time in this
// process. With 1 they are handled one after the other, and an event that waits
// for its next attempt in place holds up the next.
func Concurrency(n int) SubscribeOption {
	return subscribeOption(func(s *settings) { s.concurrency = n })
}

// Retry sets the subscription's retry policy.
func Retry(p RetryPolicy) SubscribeOption {
	return subscribeOption(func(s *settings) { s.retry = p })
}

// Timeout ends the handler's context after d; 0 means never. A handler that
// returns an error after that is retried.
func Timeout(d time.Duration) SubscribeOption {
	return subscribeOption(func(s *settings) { s.timeout = d })
}

// Ordered handles the events of one partition key one after the other, in the
// order of their publishing; events without a key count as of one key. Events of
// different keys are handled concurrently. An event that fails waits in place
// for its retries, and those of its key wait behind it, at most for as long as
// the transport allows (15 minutes); then it is poisoned and the next one follows.
// One of an unknown type keeps its place for a day. Events without an id can't be told
// apart when they go back, and may then change places.
func Ordered() SubscribeOption {
	return subscribeOption(func(s *settings) { s.ordered = true })
}

// Ephemeral makes a subscription that sees every event from now on in every
// replica, and that is deleted when the process ends: for caches, live pages and
// replies. What could not be handled is gone with it.
func Ephemeral() SubscribeOption {
	return subscribeOption(func(s *settings) { s.ephemeral = true })
}

// OnInterruption has fn called with true when an [Ephemeral] subscription is lost with the
// connection to the broker, and with false when it exists again, before its first event. The
// subscription does not get what was published in between, so fn rebuilds what the events
// feed, such as a cache. It is not called by transports that keep the subscription meanwhile,
// as SQL and memory do, nor for other subscriptions: see [Bus.Ready] for those. fn has to be
// quick.
func OnInterruption(fn func(interrupted bool)) SubscribeOption {
	return subscribeOption(func(s *settings) { s.interruption = fn })
}

// WithoutDedup handles every copy of an event. For handlers that are idempotent
// anyway.
func WithoutDedup() SubscribeOption {
	return subscribeOption(func(s *settings) { s.noDedup = true })
}

// DedupRetention tells how long somebody remembers which events were handled.
type DedupRetention interface{ Retention() time.Duration }

// DedupBy says that the subscription's handler deduplicates by itself, as one of package
// inbox does: [Config.Dedup] leaves its events alone, and Start checks that they are
// remembered for longer than they are retried.
func DedupBy(d DedupRetention) SubscribeOption {
	return subscribeOption(func(s *settings) { s.noDedup, s.ownDedup = true, d })
}

// PauseOnPoison pauses the subscription instead of poisoning an event: the event
// keeps its place, unsettled, and the subscription stands still until [Bus.Resume],
// when the event starts afresh. For handlers that must not miss an event.
func PauseOnPoison() SubscribeOption {
	return subscribeOption(func(s *settings) { s.pauseOnPoison = true })
}

// CircuitBreaker pauses the subscription while its dependency is down, as the outcomes of
// the handler say: while the circuit is open, nothing is handled, settled, counted or
// poisoned. When the breaker's delay is over, it lets single events try, as many as the
// breaker permits. One that fails then is put off without being counted, so an outage uses
// up no retries; only an event that has been put off for a day is poisoned. See
// [middleware.CircuitBreaker]. The breaker can be shared by subscriptions.
//
// Its threshold should be higher than the attempts of one event: else an event that fails
// by its own fault opens the circuit, and where nothing else comes that would close it, as
// in an ordered subscription with one key, it is in the way for a day.
func CircuitBreaker(cb circuitbreaker.CircuitBreaker[any]) SubscribeOption {
	return subscribeOption(func(s *settings) { s.breaker, s.observed, s.breakers = cb, false, s.breakers+1 })
}

// ObserveCircuitBreaker is [CircuitBreaker] for a breaker that is fed by the clients which
// the handler uses, such as an HTTP client with failsafehttp: what the handler returns is
// not recorded, and an event whose client had no permit is not counted as tried.
func ObserveCircuitBreaker(cb circuitbreaker.CircuitBreaker[any]) SubscribeOption {
	return subscribeOption(func(s *settings) { s.breaker, s.observed, s.breakers = cb, true, s.breakers+1 })
}

// RateLimit makes events wait for a permit of the limiter before each attempt. Waiting
// counts for nothing. The limiter can be shared by subscriptions, and with clients.
func RateLimit(limiter ratelimiter.RateLimiter[any]) SubscribeOption {
	return subscribeOption(func(s *settings) {
		s.limiter = limiter
		s.limited = true
	})
}

// Policies puts policies of failsafe-go around each attempt, the first one outermost: see
// [middleware.Policies]. They can be shared by subscriptions, and with clients.
func Policies(policies ...failsafe.Policy[any]) SubscribeOption {
	return subscribeOption(func(s *settings) { s.policies = append(s.policies, policies...) })
}

// Use adds middleware around the handler of the subscription, inside the bus's
// own, the first one outermost. It sees each attempt.
func Use(m ...message.HandlerMiddleware) SubscribeOption {
	return subscribeOption(func(s *settings) { s.middleware = append(s.middleware, m...) })
}

// validate returns the faults of the settings of a subscription.
func (s settings) validate(name string) (faults []error) {
	of := fmt.Sprintf("subscription %q", name)
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf(of+": "+format, args...))
	}
	if s.concurrency < 1 {
		fault("Concurrency is %d; it takes at least 1", s.concurrency)
	}
	if s.timeout < 0 {
		fault("Timeout is %v; it must not be negative", s.timeout)
	}
	if err := s.retry.validate(of); err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, s.validateResilience(of)...)
	for i, m := range s.middleware {
		if m == nil {
			fault("middleware %d is nil", i)
		}
	}
	return faults
}

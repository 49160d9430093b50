package bus

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/ratelimiter"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// validateResilience returns the faults of policies: each of them would lose, double or
// poison events.
func (s settings) validateResilience(of string) (faults []error) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf(of+": "+format, args...))
	}
	switch {
	case s.breakers > 1:
		fault("it has %d circuit breakers; give it one, and guard each further dependency at its client", s.breakers)
	case s.breakers == 1 && s.breaker == nil:
		fault("the circuit breaker is nil")
	}
	if s.limited && s.limiter == nil {
		fault("the rate limiter is nil")
	}
	for i, p := range s.policies {
		switch p.(type) {
		case nil:
			fault("policy %d is nil", i)
		case circuitbreaker.CircuitBreaker[any]:
			fault("policy %d is a circuit breaker, which would put events off while it is open; use bus.CircuitBreaker, which pauses the subscription", i)
		case ratelimiter.RateLimiter[any]:
			fault("policy %d is a rate limiter, which would put events off; use bus.RateLimit, which waits", i)
		}
	}
	for i, f := range s.fallbacks {
		if f == nil {
			fault("fallback %d is nil", i)
		}
	}
	return faults
}

// circuitBreaker makes the circuit breaker of the subscription; nil when it has none.
func (s *Subscription) circuitBreaker(stopping <-chan struct{}) *middleware.CircuitBreaker {
	if s.settings.breaker == nil {
		return nil
	}
	return middleware.NewCircuitBreaker(middleware.CircuitBreakerConfig{
		Breaker:  s.settings.breaker,
		Observed: s.settings.observed,
		Gate:     &s.gate,
		Stopping: stopping,
		OnChange: func(state circuitbreaker.State) {
			level, text := slog.LevelWarn, "the subscription is paused: its circuit is open"
			switch state {
			case circuitbreaker.HalfOpenState:
				level, text = slog.LevelDebug, "single events are tried: the circuit is half-open"
			case circuitbreaker.ClosedState:
				level, text = slog.LevelInfo, "the subscription goes on: its circuit is closed"
			case circuitbreaker.OpenState:
			}
			s.bus.log.LogAttrs(context.Background(), level, text, slog.String("subscription", s.fullName)) //nolint:sloglint // one of three
		},
	})
}

// fallbackOption makes the fallback of a bus.
type fallbackOption func(b *Bus) (eventType string, f fallback, err error)

// fallback handles an event whose handler has failed with an error.
type fallback func(err error) route

// Fallback handles events of type E whose handler has failed, with its error, when their
// retries are used up: instead of the poison queue. When it fails too, or panics, the
// event is poisoned, with both errors. It has the handler's [Timeout], for itself, and
// takes no slot of its [Concurrency]. [Permanent] and [Discard] are the handler's own
// decision, for which there is no fallback.
//
// E may be [Raw], for events of every type.
func Fallback[E any](fn func(ctx context.Context, event E, err error) error) SubscribeOption {
	return subscribeOption(func(s *settings) {
		if fn == nil {
			s.fallbacks = append(s.fallbacks, nil)
			return
		}
		s.fallbacks = append(s.fallbacks, func(b *Bus) (string, fallback, error) {
			if raw, ok := any(fn).(func(context.Context, Raw, error) error); ok {
				return "", func(err error) route {
					return func(ctx context.Context, _ Codec, _ string, data []byte) error {
						md, _ := events.MetadataFrom(ctx)
						return raw(ctx, Raw{Metadata: md, Data: data}, err)
					}
				}, nil
			}
			var zero E
			eventType, err := b.encoder.name(reflect.TypeFor[E](), zero)
			return eventType, func(err error) route {
				return decoding(eventType, func(ctx context.Context, event E) error { return fn(ctx, event, err) })
			}, err
		})
	})
}

// checkFallbacks returns the faults of fallbacks that will never be called. Called with
// Bus.mu held.
func (s *Subscription) checkFallbacks() (faults []error) {
	seen := make(map[string]bool)
	for _, option := range s.settings.fallbacks {
		if option == nil {
			continue // a fault already
		}
		eventType, _, err := option(s.bus)
		_, handled := s.routes[eventType]
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("subscription %q: fallback: %w", s.name, err))
		case seen[eventType]:
			faults = append(faults, fmt.Errorf("subscription %q has two fallbacks for %q", s.name, eventType))
		case eventType != "" && !handled:
			faults = append(faults, fmt.Errorf("subscription %q has a fallback for %q and no handler for it", s.name, eventType))
		}
		seen[eventType] = true
	}
	return faults
}

// fallback is the middleware of the subscription's fallbacks.
func (s *Subscription) fallback() message.HandlerMiddleware {
	byType := make(map[string]fallback)
	for _, option := range s.settings.fallbacks {
		if eventType, f, err := option(s.bus); err == nil { // as checkFallbacks has made sure
			byType[eventType] = f
		}
	}
	find := func(md events.Metadata) fallback {
		if f, ok := byType[md.Type]; ok {
			return f
		}
		return byType[""]
	}
	return middleware.Fallback(middleware.FallbackConfig{
		When: func(msg *message.Message, _ error) bool {
			md, _ := events.MetadataFrom(msg.Context())
			n, _ := strconv.Atoi(msg.Metadata[transports.HeaderRedeliveries]) // 0 when there are none
			return n >= len(s.settings.retry.Redeliveries) && find(md) != nil
		},
		Handler: func(msg *message.Message, cause error) error {
			ctx := msg.Context()
			if s.settings.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, s.settings.timeout)
				defer cancel()
			}
			md, _ := events.MetadataFrom(ctx)
			r := find(md)(cause)
			if _, typed := byType[md.Type]; !typed { // of Raw, which takes the data as it came
				return r(ctx, nil, "", msg.Payload)
			}
			return s.route(ctx, md, r, msg.Payload)
		},
	})
}

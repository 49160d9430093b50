package bus

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/bulkhead"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

const (
	// unknownTypeDelay is how long an event of a type without a handler here is
	// put off each time.
	unknownTypeDelay = 30 * time.Second

	// inPlaceLimit bounds waits in place: half of the time after which RabbitMQ
	// takes back what is not acknowledged
	// (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout).
	inPlaceLimit = 15 * time.Minute

	// lastResortDelay is how long an event is held that the middleware itself could
	// not deal with, before it goes back and comes again.
	lastResortDelay = 5 * time.Second

	// orderedLookahead is how many events per slot an ordered subscription takes
	// in, so that those waiting behind their key leave room for other keys.
	orderedLookahead = 16
)

// inFlight is how many events the transport may have delivered at a time. It is
// more than are handled, so that those waiting for a retry in place do not take
// a slot; with a concurrency of 1 the order would suffer.
func (s settings) inFlight() int {
	switch {
	case s.ordered:
		return s.concurrency * orderedLookahead
	case s.concurrency == 1 || s.retry.Attempts == 1:
		return s.concurrency
	default:
		return 2 * s.concurrency
	}
}

// stack composes the middleware of a subscription, outermost first. runCtx is the
// context of handlers; it ends when the bus has lost patience at shutdown.
func (s *Subscription) stack(runCtx context.Context, stopping <-chan struct{}) []message.HandlerMiddleware {
	b := s.bus
	var stack []message.HandlerMiddleware
	if s.settings.ordered {
		stack = append(stack, inLane(stopping)) // outermost: whatever happens, a turn ends
	}
	stack = append(stack, s.lastResort(stopping), enter(runCtx), s.gate.Middleware(stopping))
	stack = append(stack, s.attach()...)
	stack = append(stack,
		middleware.Logging(middleware.LoggingConfig{Subscription: s.fullName, Logger: b.log, Limiter: b.lines}), middleware.Correlation(s.fullName),
		s.poison(stopping), refuseMalformed, s.redelivery(stopping))
	if b.cfg.Dedup != nil && !s.settings.noDedup {
		stack = append(stack, middleware.Dedup(middleware.DedupConfig{
			Subscription: s.fullName,
			Store:        b.cfg.Dedup,
			OnDuplicate:  func(msg *message.Message) { s.observe(msg, Deduplicated, nil, 0) },
			OnStoreError: func(err error) { s.trouble("deduplication store failed", err) },
		}))
	}
	stack = append(stack, s.noteHandled)
	if len(s.settings.fallbacks) > 0 {
		stack = append(stack, s.fallback())
	}
	stack = append(stack, middleware.Retry(middleware.RetryConfig{
		Attempts: s.settings.retry.Attempts,
		MinDelay: s.settings.retry.MinDelay,
		MaxDelay: s.settings.retry.MaxDelay,
		OnRetry:  func(msg *message.Message, err error, _ int) { s.observe(msg, Retried, err, 0) },
	}))
	breaker := s.circuitBreaker(stopping)
	if breaker != nil {
		stack = append(stack, breaker.Wait)
	}
	if s.settings.inFlight() > s.settings.concurrency {
		stack = append(stack, middleware.Bulkhead(bulkhead.New[any](uint(s.settings.concurrency))))
	}
	if s.settings.limiter != nil {
		stack = append(stack, middleware.RateLimit(s.settings.limiter, stopping))
	}
	stack = append(stack, s.begin(stopping))
	if breaker != nil { // inside of all that waits
		stack = append(stack, breaker.Guard)
	}
	if len(s.settings.policies) > 0 {
		stack = append(stack, middleware.Policies(s.settings.policies...))
	}
	if s.settings.timeout > 0 {
		stack = append(stack, middleware.Timeout(s.settings.timeout))
	}
	stack = append(stack, middleware.Recover, refuseOutput)
	stack = append(stack, b.cfg.Middleware...)
	return append(stack, s.settings.middleware...)
}

// begin looks, before each attempt, whether the bus stops or the gate was shut while the
// event waited: for a slot, for its next attempt, or for its next redelivery in place.
func (s *Subscription) begin(stopping <-chan struct{}) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			if err := s.gate.Wait(msg.Context(), stopping); err != nil {
				return nil, err
			}
			select {
			case <-stopping:
				return nil, middleware.ErrInterrupted
			default:
				return h(msg)
			}
		}
	}
}

var errOutput = errors.New("bus: a middleware returned messages, which have no topic to go to: publish them")

// refuseOutput makes an error of messages for the router to publish: it has no publisher,
// and would nack the event at once, for ever.
func refuseOutput(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		out, err := h(msg)
		if err == nil && len(out) > 0 {
			return nil, middleware.Permanent(errOutput)
		}
		return nil, err
	}
}

// lastResort catches what should not happen: a panic in the middleware itself, in
// OnDelivery or in a store. The event goes back, and since it would come again at
// once, it is held for a while before.
func (s *Subscription) lastResort(stopping <-chan struct{}) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		h = middleware.Recover(h)
		return func(msg *message.Message) ([]*message.Message, error) {
			base := msg.Context()
			start := time.Now()
			for {
				out, err := h(msg)
				if err == nil || errors.Is(err, middleware.ErrInterrupted) {
					return out, err
				}
				s.trouble("the event could not be dealt with and goes back", err)
				timer := time.NewTimer(lastResortDelay)
				select {
				case <-timer.C:
				case <-stopping:
					timer.Stop()
					return nil, err
				}
				if !s.settings.ordered || time.Since(start) > inPlaceLimit { // in an ordered one it keeps its lane
					return nil, err
				}
				msg.SetContext(base)
			}
		}
	}
}

func (s *Subscription) poison(stopping <-chan struct{}) message.HandlerMiddleware {
	if s.settings.pauseOnPoison {
		return s.pauseInstead(stopping)
	}
	b := s.bus
	queue, ok := b.transport.(middleware.PoisonWriter)
	if !ok {
		queue = poisonTopic{b.transport}
	}
	return middleware.Poison(middleware.PoisonConfig{
		Subscription: s.fullName,
		Queue:        queue,
		Service:      b.cfg.Service,
		Host:         b.host,
		Gate:         &s.gate,
		Stopping:     stopping,
		OnPoison:     func(msg *message.Message, err error) { s.observe(msg, Poisoned, err, 0) },
		OnDiscard:    func(msg *message.Message, err error) { s.observe(msg, Discarded, err, 0) },
		OnWriteError: func(err error) {
			s.trouble("poison queue can't be written; the subscription is paused until it can", err)
		},
	})
}

func (s *Subscription) redelivery(stopping <-chan struct{}) message.HandlerMiddleware {
	cfg := middleware.RedeliveryConfig{
		Subscription: s.fullName,
		Delays:       s.settings.retry.Redeliveries,
		Stopping:     stopping,
		OnRedelivery: func(msg *message.Message, err error, delay time.Duration, counted bool) {
			outcome := Redelivered
			if !counted {
				outcome = Deferred
			}
			s.observe(msg, outcome, err, delay)
		},
		OnWriteError: func(err error) { s.trouble("event can't be requeued; it waits until it can", err) },
	}
	requeuer, ok := s.bus.transport.(transports.Requeuer)
	if ok && !s.settings.ordered {
		cfg.Requeuer = requeuer
	} else {
		cfg.InPlaceLimit = inPlaceLimit
	}
	return middleware.Redelivery(cfg)
}

// pauseInstead takes the place of Poison for PauseOnPoison: the event keeps its
// place, unsettled, and is handled anew after Resume.
func (s *Subscription) pauseInstead(stopping <-chan struct{}) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			for {
				out, err := h(msg)
				switch {
				case err == nil || errors.Is(err, middleware.ErrInterrupted):
					return out, err
				case middleware.VerdictOf(err).Kind == middleware.KindDiscard:
					middleware.LogOutcome(msg, slog.LevelInfo, "discarded", err)
					s.observe(msg, Discarded, err, 0)
					return nil, nil
				}
				s.trouble("the subscription is paused: an event can't be handled", err)
				s.pause("event " + msg.UUID + " can't be handled: " + err.Error())
				err = s.gate.Wait(msg.Context(), stopping)
				transports.StripHeaders(msg.Metadata) // it starts afresh, also when it goes back before
				if err != nil {
					return nil, err
				}
				if md, ok := events.MetadataFrom(msg.Context()); ok {
					md.Attempt = 1
					msg.SetContext(events.WithMetadata(msg.Context(), &md))
				}
			}
		}
	}
}

// noteHandled observes success, inside Dedup so that duplicates don't count.
func (s *Subscription) noteHandled(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		out, err := h(msg)
		if err == nil {
			s.observe(msg, Handled, nil, 0)
		}
		return out, err
	}
}

package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// maxDeferral is how long an event that can't be taken is put off before it is
// poisoned: long enough for a rolling deploy that went wrong overnight.
const maxDeferral = 24 * time.Hour

// RedeliveryConfig configures [Redelivery].
type RedeliveryConfig struct {
	// Subscription is the name of the subscription to come back to. Required.
	Subscription string

	// Requeuer brings messages back. nil means to wait in place, holding the
	// message unsettled: for transports that can't do better, and for ordered
	// subscriptions, where nothing may overtake.
	Requeuer transports.Requeuer

	// Delays are the waits before each redelivery; their number is the number of
	// redeliveries. None: a failed message is not redelivered.
	Delays []time.Duration

	// InPlaceLimit bounds the waits in place of one delivery together. After it, the
	// redeliveries count as used up; what was deferred goes back and comes again. 0
	// means no bound. Brokers take back what is not settled in time (RabbitMQ after
	// 30 minutes by default).
	InPlaceLimit time.Duration

	// Stopping, when closed, interrupts waits: the message goes back.
	Stopping <-chan struct{}

	// OnRedelivery, if set, is called when a message has been put off. counted is
	// false for one that was deferred.
	OnRedelivery func(msg *message.Message, err error, delay time.Duration, counted bool)

	// OnWriteError, if set, is told each time that a message could not be
	// requeued. It stays unsettled, and the write is tried again with back-off.
	OnWriteError func(error)
}

// Redelivery brings a failed message back to its subscription after a delay: the
// transport keeps it meanwhile, so that the wait survives a restart and holds up
// nothing else. The error is passed on when the redeliveries are used up, or when
// it says that they would be of no use.
func Redelivery(cfg RedeliveryConfig) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			base := msg.Context()
			defer msg.SetContext(base)
			var waited time.Duration
			for {
				attempts := transports.Attempts(msg)
				out, err := call(h, msg)
				if err == nil {
					return out, nil
				}
				if interrupted(msg, err) {
					return nil, interruption(err)
				}
				if transports.Attempts(msg) == attempts {
					countFailure(msg, err) // no Retry inside has done so
				}
				delay, counted, again := cfg.plan(msg, err)
				if !again {
					return nil, usedUp(err)
				}
				if cfg.Requeuer != nil {
					return nil, cfg.requeue(msg, err, delay, counted)
				}
				waited += delay
				if cfg.InPlaceLimit > 0 && waited > cfg.InPlaceLimit {
					if !counted { // it was never tried
						return nil, interruption(err)
					}
					return nil, err
				}
				cfg.announce(msg, err, delay, counted)
				if !pause(msg, delay, cfg.Stopping) {
					return nil, interruption(err)
				}
				msg.SetContext(nextAttempt(base, msg))
			}
		}
	}
}

// plan says when a failed message is to come back, if it is, and writes that
// into its metadata. counted is whether that uses up a redelivery.
func (c RedeliveryConfig) plan(msg *message.Message, err error) (delay time.Duration, counted, again bool) {
	verdict := VerdictOf(err)
	switch verdict.Kind {
	case KindPermanent, KindDiscard:
		return 0, false, false
	case KindDefer:
		since, err := time.Parse(time.RFC3339, msg.Metadata[transports.HeaderDeferredSince])
		now := time.Now()
		if err != nil || since.After(now) { // the first time; or a stranger's nonsense, which must not defer for ever
			setHeader(msg, transports.HeaderDeferredSince, now.UTC().Format(time.RFC3339))
		} else if now.Sub(since) > maxDeferral {
			return 0, false, false
		}
		return verdict.Delay, false, true
	}
	n, parseErr := strconv.Atoi(msg.Metadata[transports.HeaderRedeliveries])
	if parseErr != nil || n < 0 { // none yet; or nonsense
		n = 0
	}
	if n >= len(c.Delays) {
		return 0, false, false
	}
	delay = c.Delays[n]
	if verdict.Kind == KindAfter {
		delay = verdict.Delay
	}
	setHeader(msg, transports.HeaderRedeliveries, strconv.Itoa(n+1))
	delete(msg.Metadata, transports.HeaderDeferredSince)
	return delay, true, true
}

// usedUp returns the error of a message that does not come back. A deferral is
// permanent now: [Poison] would put it off again.
func usedUp(err error) error {
	if VerdictOf(err).Kind == KindDefer {
		return Permanent(err)
	}
	return err
}

// requeue hands the message to the transport. Afterwards this delivery of it is
// to be acknowledged. It does not insist: a place to wait that takes no messages may
// take none for long, while the handler may succeed by now, so the message goes back.
// What the transport can never keep, such as a delay over its longest, is permanent.
func (c RedeliveryConfig) requeue(msg *message.Message, cause error, delay time.Duration, counted bool) error {
	var refused error
	err := persist(msg, c.Stopping, false, c.OnWriteError, func(ctx context.Context) error {
		err := c.Requeuer.Requeue(ctx, c.Subscription, msg, delay)
		if errors.Is(err, transports.ErrUnsupported) || errors.Is(err, transports.ErrTooLarge) {
			refused = err
			return nil
		}
		return err
	})
	if refused != nil {
		return Permanent(fmt.Errorf("%w (it can't be redelivered: %w)", cause, refused))
	}
	if err == nil {
		c.announce(msg, cause, delay, counted)
	}
	return err
}

func (c RedeliveryConfig) announce(msg *message.Message, err error, delay time.Duration, counted bool) {
	level, outcome := slog.LevelInfo, "deferred"
	if counted {
		level, outcome = slog.LevelWarn, "redelivered"
	}
	logStep(msg, level, outcome, err, delay, c.Requeuer != nil)
	if c.OnRedelivery != nil {
		c.OnRedelivery(msg, err, delay, counted)
	}
}

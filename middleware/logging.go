package middleware

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// LoggingConfig configures [Logging].
type LoggingConfig struct {
	// Subscription is named in each line. Required.
	Subscription string

	// Logger takes the lines. nil means to discard.
	Logger *slog.Logger

	// Limiter bounds the lines of one fault, those of the debug level excepted. It can
	// be shared by subscriptions. nil means to write them all.
	Limiter *LogLimiter
}

// Logging writes a line for each delivery that fails, with what becomes of it: the
// middleware further in tells it. Its fields are outcome, subscription, event_type,
// event_id, correlation_id, attempt, duration (since the message came here), error, and
// delay for what comes back later. Payloads are never logged. In a storm of failures a
// [LogLimiter] bounds the lines.
//
//	outcome       level
//	handled       debug
//	retried       debug   an attempt failed, the next one follows in place
//	deduplicated  debug
//	returned      debug   interrupted; it goes back, uncounted
//	deferred      info    not tried; it comes back after delay, uncounted
//	discarded     info
//	redelivered   warn    it failed, and comes back after delay
//	failed        error   it failed, and nothing further in has dealt with that
//	poisoned      error
func Logging(cfg LoggingConfig) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		if cfg.Logger == nil || !cfg.Logger.Enabled(context.Background(), slog.LevelError) {
			return h
		}
		return func(msg *message.Message) ([]*message.Message, error) {
			base := msg.Context()
			defer msg.SetContext(base)
			log := &deliveryLog{Context: base, cfg: &cfg, start: time.Now()}
			msg.SetContext(log)
			out, err := h(msg)
			switch {
			case errors.Is(err, ErrInterrupted) || err != nil && base.Err() != nil:
				log.write(msg, slog.LevelDebug, "returned", err, 0)
			case err != nil:
				log.write(msg, slog.LevelError, "failed", err, 0)
			case !log.settled:
				log.write(msg, slog.LevelDebug, "handled", nil, 0)
			}
			return out, err
		}
	}
}

// deliveryLog is the context of a message that is logged, with which middleware further
// in finds the log.
type deliveryLog struct {
	context.Context //nolint:containedctx // it is a context
	cfg             *LoggingConfig
	start           time.Time
	settled         bool // the last line of this delivery is written
}

type deliveryLogKey struct{}

func (l *deliveryLog) Value(key any) any {
	if key == (deliveryLogKey{}) {
		return l
	}
	return l.Context.Value(key)
}

// LogOutcome writes the line of [Logging], if there is one further out, for a message that
// middleware of one's own has settled without an error.
func LogOutcome(msg *message.Message, level slog.Level, outcome string, err error) {
	logStep(msg, level, outcome, err, 0, true)
}

// logStep logs a step of a delivery where it is logged. The last one that settles it
// says so.
func logStep(msg *message.Message, level slog.Level, outcome string, err error, delay time.Duration, settled bool) {
	log, ok := msg.Context().Value(deliveryLogKey{}).(*deliveryLog)
	if !ok {
		return
	}
	log.settled = log.settled || settled
	log.write(msg, level, outcome, err, delay)
}

func (l *deliveryLog) write(msg *message.Message, level slog.Level, outcome string, err error, delay time.Duration) {
	if !l.cfg.Logger.Enabled(l, level) {
		return
	}
	if level > slog.LevelDebug && !l.cfg.Limiter.Allow(level, l.cfg.Subscription, outcome, err) {
		return
	}
	md := events.DecodeMetadata(msg.UUID, msg.Metadata)
	if md.Type == "" {
		md.Type = transports.Topic(msg)
	}
	attempt := transports.Attempts(msg) // the failed ones so far
	if outcome == "handled" {
		attempt++
	}
	attrs := []slog.Attr{
		slog.String("outcome", outcome),
		slog.String("subscription", l.cfg.Subscription),
		slog.String("event_type", md.Type),
		slog.String("event_id", md.ID),
	}
	if md.CorrelationID != "" {
		attrs = append(attrs, slog.String("correlation_id", md.CorrelationID))
	}
	attrs = append(attrs, slog.Int("attempt", attempt), slog.Duration("duration", time.Since(l.start)))
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	if delay > 0 {
		attrs = append(attrs, slog.Duration("delay", delay))
	}
	l.cfg.Logger.LogAttrs(l, level, "delivery", attrs...)
}

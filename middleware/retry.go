package middleware

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// RetryConfig configures [Retry].
type RetryConfig struct {
	// Attempts is the most calls of the handler in one delivery, the first one
	// included. 0 or less means 3; 1 means no retry.
	Attempts int

	// MinDelay and MaxDelay bound the back-off before a retry: it is a random
	// time between zero and MinDelay, doubled for each further retry up to
	// MaxDelay ("full jitter"). 0 or less means 20 ms and 1 s.
	MinDelay, MaxDelay time.Duration

	// OnRetry, if set, is called before each back-off with the error and the
	// number of the attempt that failed, from 1 and across redeliveries.
	OnRetry func(msg *message.Message, err error, attempt int)
}

func (c RetryConfig) withDefaults() RetryConfig {
	if c.Attempts <= 0 {
		c.Attempts = 3
	}
	if c.MinDelay <= 0 {
		c.MinDelay = 20 * time.Millisecond
	}
	if c.MaxDelay <= 0 {
		c.MaxDelay = max(time.Second, c.MinDelay)
	}
	return c
}

// delay returns the back-off before the nth retry, n from 1.
func (c RetryConfig) delay(n int) time.Duration {
	bound := c.MaxDelay
	if doublings := n - 1; c.MinDelay <= c.MaxDelay>>doublings {
		bound = c.MinDelay << doublings
	}
	return rand.N(bound)
}

// Retry calls a handler again, in place, when it fails. It is for short trouble:
// the message stays unsettled meanwhile. An error with a verdict, such as
// [Permanent], is not retried, and neither is anything once the message's context
// has ended; the handler's own last error is what Retry returns.
//
// It counts the calls in the message's metadata, [transports.HeaderAttempts].
func Retry(cfg RetryConfig) message.HandlerMiddleware {
	cfg = cfg.withDefaults()
	policy := retrypolicy.NewBuilder[any]().
		WithMaxAttempts(cfg.Attempts).
		AbortIf(func(_ any, err error) bool {
			return VerdictOf(err).Kind != KindRetry || errors.Is(err, ErrInterrupted)
		}).
		WithDelayFunc(func(exec failsafe.ExecutionAttempt[any]) time.Duration { return cfg.delay(exec.Attempts()) }).
		Build()
	executor := failsafe.With(policy)

	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			out, err := call(h, msg)
			if err == nil {
				return out, nil
			}
			countFailure(msg, err)
			if cfg.Attempts == 1 || VerdictOf(err).Kind != KindRetry || interrupted(msg, err) {
				return nil, err
			}
			return cfg.retry(executor, h, msg, err)
		}
	}
}

// retry goes on after the first call has failed. Only here does the policy come in,
// since failing is rare: its first execution is the call that has just failed.
func (c RetryConfig) retry(executor failsafe.Executor[any], h message.HandlerFunc, msg *message.Message, err error) ([]*message.Message, error) {
	base := msg.Context()
	defer msg.SetContext(base)
	var out []*message.Message
	first := true
	_ = executor.WithContext(base).RunWithExecution(func(exec failsafe.Execution[any]) error { // err is the handler's own error
		if !first {
			msg.SetContext(nextAttempt(base, msg))
			if out, err = call(h, msg); err != nil {
				countFailure(msg, err)
			}
		}
		first = false
		if err != nil && exec.Attempts() < c.Attempts && VerdictOf(err).Kind == KindRetry && !interrupted(msg, err) {
			logStep(msg, slog.LevelDebug, "retried", err, 0, false)
			if c.OnRetry != nil {
				c.OnRetry(msg, err, transports.Attempts(msg))
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// countFailure notes a failed call in the message's metadata.
func countFailure(msg *message.Message, err error) {
	if deferred(err) || interrupted(msg, err) {
		return // the handler has not tried
	}
	setHeader(msg, transports.HeaderAttempts, strconv.Itoa(transports.Attempts(msg)+1))
	if _, err := time.Parse(time.RFC3339Nano, msg.Metadata[transports.HeaderFirstFailure]); err != nil {
		setHeader(msg, transports.HeaderFirstFailure, time.Now().UTC().Format(time.RFC3339Nano))
	}
}

// setHeader writes to the metadata of a message, which a foreign transport may
// have left nil.
func setHeader(msg *message.Message, key, value string) {
	if msg.Metadata == nil {
		msg.Metadata = make(message.Metadata)
	}
	msg.Metadata[key] = value
}

// nextAttempt returns base with the attempt's number in its metadata, if it has
// metadata.
func nextAttempt(base context.Context, msg *message.Message) context.Context {
	md, ok := events.MetadataFrom(base)
	if !ok {
		return base
	}
	md.Attempt = transports.Attempts(msg) + 1
	return events.WithMetadata(base, &md)
}

package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// Bounds of what a poisoned message says of its failure, in bytes: together they
// must fit into the headers of a message beside the event's own.
const (
	maxReason = 4 << 10
	maxStack  = 8 << 10
)

// PoisonWriter is the part of [transports.PoisonQueue] that [Poison] needs.
type PoisonWriter interface {
	Poison(ctx context.Context, subscription string, msg *message.Message) error
}

// PoisonConfig configures [Poison].
type PoisonConfig struct {
	// Subscription is the name of the subscription that fails. Required.
	Subscription string

	// Queue keeps the poisoned messages. Required.
	Queue PoisonWriter

	// Service and Host are recorded with each poisoned message; optional.
	Service, Host string

	// Gate, if set, is shut while the poison queue can't be written, so that no
	// further messages run into the same fault.
	Gate *Gate

	// Stopping, when closed, interrupts the wait for a poison queue that can't be
	// written: the message goes back.
	Stopping <-chan struct{}

	// OnPoison, if set, is called when a message has been poisoned.
	OnPoison func(msg *message.Message, err error)

	// OnDiscard, if set, is called for a message that is dropped by [Discard].
	OnDiscard func(msg *message.Message, err error)

	// OnWriteError, if set, is told each time that the poison queue could not be
	// written. The message stays unsettled, and the write is tried again with
	// back-off.
	OnWriteError func(error)
}

// Poison puts a message whose handling has failed for good into the poison queue
// of its subscription, with what is known of the failure. The message counts as
// handled once that is stored, and not before. What was interrupted has not
// failed: its error is passed on, and the router nacks it. What is deferred has
// not failed either: without a [Redelivery] inside, which would requeue it, it
// waits in place and then goes back.
func Poison(cfg PoisonConfig) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			attempts := transports.Attempts(msg)
			out, err := call(h, msg)
			switch verdict := VerdictOf(err); {
			case err == nil:
				return out, nil
			case interrupted(msg, err):
				return nil, interruption(err)
			case verdict.Kind == KindDiscard:
				logStep(msg, slog.LevelInfo, "discarded", err, 0, true)
				if cfg.OnDiscard != nil {
					cfg.OnDiscard(msg, err)
				}
				return nil, nil
			case verdict.Kind == KindDefer: // there is no Redelivery further in
				logStep(msg, slog.LevelInfo, "deferred", err, verdict.Delay, true)
				pause(msg, verdict.Delay, cfg.Stopping)
				return nil, interruption(err)
			default:
				if transports.Attempts(msg) == attempts {
					countFailure(msg, err) // no Retry or Redelivery inside has done so
				}
				return nil, cfg.poison(msg, err)
			}
		}
	}
}

func (c PoisonConfig) poison(msg *message.Message, cause error) error {
	p := c.describe(msg, cause)
	open := func() {}
	defer func() { open() }()
	shut := sync.OnceFunc(func() {
		if c.Gate != nil {
			open = c.Gate.Hold("the poison queue can't be written")
		}
	})
	onError := func(err error) {
		shut()
		if c.OnWriteError != nil {
			c.OnWriteError(err)
		}
	}
	err := persist(msg, c.Stopping, true, onError, func(ctx context.Context) error {
		return c.Queue.Poison(ctx, c.Subscription, p.Message)
	})
	if err != nil {
		return err
	}
	logStep(msg, slog.LevelError, "poisoned", cause, 0, true)
	if c.OnPoison != nil {
		c.OnPoison(msg, cause)
	}
	return nil
}

// describe makes the message to store: a copy, since the original may go back.
func (c PoisonConfig) describe(msg *message.Message, cause error) transports.Poisoned {
	stored := msg.Copy()
	if stored.UUID == "" {
		stored.UUID = events.NewID() // a name for the operator to call it by
	}
	firstFailure, err := time.Parse(time.RFC3339Nano, msg.Metadata[transports.HeaderFirstFailure])
	p := transports.Poisoned{
		Message:      stored,
		Reason:       truncate(fmt.Sprint(cause), maxReason), // which survives a nil pointer of a handler's error type
		ErrorType:    errorType(cause),
		Attempts:     transports.Attempts(msg),
		FirstFailure: firstFailure,
		LastFailure:  time.Now(),
		Subscription: c.Subscription,
		Topic:        transports.Topic(msg),
		Service:      c.Service,
		Host:         c.Host,
	}
	if err != nil {
		p.FirstFailure = p.LastFailure
	}
	if panicked, ok := errors.AsType[*PanicError](cause); ok {
		p.Stack = truncate(string(panicked.Stack), maxStack)
	}
	transports.WritePoisoned(p)
	return p
}

// errorType returns the Go type of the innermost error of a chain; of a joined
// error, that of the first one.
func errorType(err error) string {
	for {
		switch wrapper := err.(type) { //nolint:errorlint // walks the tree by hand
		case interface{ Unwrap() []error }:
			if errs := wrapper.Unwrap(); len(errs) > 0 {
				err = errs[0]
				continue
			}
		case interface{ Unwrap() error }:
			if inner := wrapper.Unwrap(); inner != nil {
				err = inner
				continue
			}
		}
		return fmt.Sprintf("%T", err)
	}
}

// truncate cuts s to at most n bytes of valid UTF-8.
func truncate(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	cut := n - len("…")
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

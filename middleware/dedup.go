package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// DedupKey identifies an event within a subscription.
type DedupKey struct {
	Subscription string
	Event        transports.EventKey
	Replay       string // the id of the replay that has sent it again, "" of the event itself
}

// ReplayKey is the metadata key of the id of a replay, the extension attribute "replayid":
// an event is handled once more for each replay.
const ReplayKey = events.AttributePrefix + "replayid"

// ClaimState is the answer to a claim.
type ClaimState int

// The answers to a claim.
const (
	Claimed     ClaimState = iota + 1 // the caller has the event now
	ClaimBusy                         // somebody else has it now
	AlreadyDone                       // it was handled before
)

// Claim is what [DedupStore.Claim] answers.
type Claim struct {
	State ClaimState
	Token uint64 // fencing token of a Claimed event; each claim of a key has a higher one
}

// ErrClaimLost is returned for a claim that ran out and that somebody else may
// have taken since.
var ErrClaimLost = errors.New("deduplication claim is lost")

// DedupStore remembers which events were handled. Its methods may be called
// concurrently.
//
//	        Claim                Complete
//	free ──────────► claimed ─────────────► done, for Retention
//	  ▲                 │
//	  └─────────────────┘ Release, or the lease runs out
type DedupStore interface {
	// Claim takes an event for the caller unless it is taken or done.
	Claim(ctx context.Context, key DedupKey) (Claim, error)

	// Renew extends a claim by Lease from now. The error is [ErrClaimLost] when
	// it is not the caller's any more.
	Renew(ctx context.Context, key DedupKey, token uint64) error

	// Complete marks a claimed event as done. The error is [ErrClaimLost] when
	// the claim is not the caller's any more; the mark is not made then.
	Complete(ctx context.Context, key DedupKey, token uint64) error

	// Release gives a claim up. One that is not the caller's any more is left alone.
	Release(ctx context.Context, key DedupKey, token uint64) error

	// Lease is how long a claim lasts without Renew. 0 means that it lasts until
	// it is completed or released, or its holder's process ends.
	Lease() time.Duration

	// Retention is how long an event is remembered as done, at most. It has to
	// be longer than the longest automatic retry: a copy that comes back later
	// is taken for a new event.
	Retention() time.Duration
}

// DedupConfig configures [Dedup].
type DedupConfig struct {
	// Subscription is part of the key: each subscription handles an event once.
	// Required.
	Subscription string

	// Store remembers. Required.
	Store DedupStore

	// OnDuplicate, if set, is called for an event that is acknowledged because it
	// was handled before.
	OnDuplicate func(msg *message.Message)

	// OnStoreError, if set, is told of errors of the store. An event that can't be
	// claimed comes back later, uncounted. One that was handled but can't be marked
	// as done is acknowledged; a further copy of it would be handled again.
	OnStoreError func(error)
}

const (
	busyWait    = 250 * time.Millisecond // how long to wait in place for the other copy
	busyMinPoll = 2 * time.Millisecond
	busyDefer   = 2 * time.Second // how long a copy is put off that was still busy then
	markTimeout = 10 * time.Second
)

// Dedup handles each event once per subscription, and once more for each replay. It claims the event before the
// handler runs and marks it as done after it has succeeded: a failure gives the
// claim up, so nothing is ever taken for a duplicate that was not handled. A copy
// that meets a live claim is not acknowledged, since it may be the only one left
// in the end; it waits a little and then comes back later. An event without an id
// is not deduplicated.
//
// An event whose handler returns messages, for the router to publish, is not
// marked: that can still fail, and the event would be taken for a duplicate when
// it comes back. Publish in the handler instead.
func Dedup(cfg DedupConfig) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) (out []*message.Message, err error) {
			if msg.UUID == "" {
				return h(msg)
			}
			key := DedupKey{Subscription: cfg.Subscription, Event: transports.KeyOf(msg), Replay: msg.Metadata[ReplayKey]}
			claim, err := cfg.claim(msg, key)
			switch {
			case err != nil:
				return nil, err
			case claim.State == AlreadyDone:
				logStep(msg, slog.LevelDebug, "deduplicated", nil, 0, true)
				if cfg.OnDuplicate != nil {
					cfg.OnDuplicate(msg)
				}
				return nil, nil
			}

			handled := false
			defer func() { // also when the handler panics or ends its goroutine
				cfg.settle(msg, key, claim.Token, handled)
			}()
			if lease := cfg.Store.Lease(); lease > 0 {
				out, err = cfg.keepAlive(h, msg, key, claim.Token, lease)
			} else {
				out, err = call(h, msg)
			}
			handled = err == nil && len(out) == 0
			return out, err
		}
	}
}

// claim claims the event, waiting a little for a copy that is being handled.
func (c DedupConfig) claim(msg *message.Message, key DedupKey) (Claim, error) {
	var waited time.Duration
	for poll := busyMinPoll; ; poll *= 2 {
		claim, err := c.Store.Claim(msg.Context(), key)
		switch {
		case err != nil && msg.Context().Err() != nil:
			return Claim{}, interruption(err)
		case err != nil:
			c.report(err)
			return Claim{}, Defer(busyDefer, fmt.Errorf("claim event %s: %w", key.Event.ID, err))
		case claim.State != ClaimBusy:
			return claim, nil
		case waited >= busyWait:
			return Claim{}, Defer(busyDefer, fmt.Errorf("a copy of event %s is being handled", key.Event.ID))
		}
		waited += poll
		if !pause(msg, poll, nil) {
			return Claim{}, ErrInterrupted
		}
	}
}

// settle ends a claim. Its context is not that of the message: an event that was
// handled while the shutdown began is marked all the same.
func (c DedupConfig) settle(msg *message.Message, key DedupKey, token uint64, handled bool) {
	ctx := context.WithoutCancel(msg.Context())
	if c.Store.Lease() > 0 { // it is at the other end of a network
		var cancel context.CancelFunc
		ctx, cancel = finishing(msg.Context(), markTimeout)
		defer cancel()
	}
	var err error
	if handled {
		err = c.Store.Complete(ctx, key, token)
	} else {
		err = c.Store.Release(ctx, key, token)
	}
	if err != nil {
		c.report(fmt.Errorf("settle claim of event %s: %w", key.Event.ID, err))
	}
}

// keepAlive calls h and renews the claim for as long as it runs, also beyond the
// end of the message's context. When the claim is lost, another copy may be handled
// somewhere else: the handler's context ends, and its failure is no failure of the
// event, which comes back later.
func (c DedupConfig) keepAlive(h message.HandlerFunc, msg *message.Message, key DedupKey, token uint64, lease time.Duration) (out []*message.Message, err error) {
	outer := msg.Context()
	ctx, cancel := context.WithCancelCause(outer)
	beat, stop := context.WithCancel(context.WithoutCancel(outer))
	done := make(chan struct{})
	go func() {
		defer close(done)
		cancel(c.renew(beat, key, token, lease))
	}()
	defer func() { // also when the handler panics or ends its goroutine
		stop()
		<-done
		msg.SetContext(outer)
		if lost := context.Cause(ctx); err != nil && errors.Is(lost, ErrClaimLost) {
			out, err = nil, Defer(busyDefer, fmt.Errorf("%w: %v", lost, err)) //nolint:errorlint // not wrapped: err may say that it was interrupted, and that is over
		}
	}()
	msg.SetContext(ctx)
	return h(msg)
}

// renew renews a claim until ctx ends. It returns an [ErrClaimLost] when the store
// says so, or when the lease has run out because the store could not be reached.
func (c DedupConfig) renew(ctx context.Context, key DedupKey, token uint64, lease time.Duration) error {
	every := max(lease/3, time.Millisecond)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	renewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		asked := time.Now()
		limited, cancel := context.WithTimeout(ctx, every)
		err := c.Store.Renew(limited, key, token)
		cancel()
		if err == nil {
			renewed = asked
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		err = fmt.Errorf("renew claim of event %s: %w", key.Event.ID, err)
		c.report(err)
		switch {
		case errors.Is(err, ErrClaimLost):
			return err
		case time.Since(renewed)+every/2 > lease: // give or take a late tick
			return fmt.Errorf("%w: %w", ErrClaimLost, err)
		}
	}
}

func (c DedupConfig) report(err error) {
	if c.OnStoreError != nil {
		c.OnStoreError(err)
	}
}

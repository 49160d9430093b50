package eventstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Store is the events that were published. Make one with [New]. Its methods may be called
// concurrently.
type Store struct {
	cfg     Config
	events  backend
	replays replays
	log     *sqlLog // nil in memory

	stop      context.CancelFunc
	following sync.WaitGroup
}

// kind is what an index finds events by.
type kind int

const (
	byID kind = iota
	bySubject
	byCorrelation
	byCausation
)

// backend is where the events are.
type backend interface {
	// add stores messages, all of them unless the error says which are not.
	add(ctx context.Context, batch []transports.Outgoing) error

	// read is that of [tsql.Log].
	read(ctx context.Context, r tsql.Range) (entries []tsql.Entry, scanned int64, more bool, err error)

	// find is read for what has a value, by an index. ok is false when there is none. An
	// entry may have another value.
	find(ctx context.Context, k kind, value string, r tsql.Range) (entries []tsql.Entry, scanned int64, more, ok bool, err error)

	// bounds returns the first and the last place, 0 when there is none.
	bounds(ctx context.Context) (first, last int64, err error)

	// settled is that of [tsql.Log].
	settled(ctx context.Context) (settled, frontier int64, err error)

	// place returns the first place of what was stored at a time or later, near enough.
	place(ctx context.Context, at time.Time) (int64, error)
}

// New makes a store, and the tables that the configuration asks for. It returns every fault
// of cfg in one error. ctx bounds the call.
func New(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("eventstore: %w", err)
	}
	cfg = cfg.withDefaults()
	s := &Store{cfg: cfg}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	if cfg.Log == nil {
		m := newMemory(cfg)
		s.events, s.replays = m, m
		return s, nil
	}
	log, err := newSQLLog(ctx, cfg)
	if err != nil {
		stop()
		return nil, fmt.Errorf("eventstore: %w", err)
	}
	s.log, s.events, s.replays = log, log, log
	if (cfg.Index || cfg.Seal) && cfg.FollowInterval > 0 {
		u := upkeep{every: cfg.FollowInterval, catchUp: s.CatchUp, prune: s.Prune, log: cfg.Logger}
		s.following.Go(func() { u.run(life) })
	}
	return s, nil
}

// Close ends what follows the log. The store can be used further; the log stays open.
func (s *Store) Close() error {
	s.stop()
	s.following.Wait()
	return nil
}

const pruneInterval = time.Hour

// upkeep is what is done to a store in the background.
type upkeep struct {
	every          time.Duration
	catchUp, prune func(context.Context) error
	log            *slog.Logger
}

// run works until ctx ends, or the log is closed. Prune follows catchUp, once an hour, when
// that has succeeded.
func (u upkeep) run(ctx context.Context) {
	ticker := time.NewTicker(u.every)
	defer ticker.Stop()
	pruned := time.Now()
	for {
		err := u.catchUp(ctx)
		if err == nil && time.Since(pruned) >= pruneInterval {
			err, pruned = u.prune(ctx), time.Now()
		}
		if err != nil && ctx.Err() == nil {
			if errors.Is(err, transports.ErrClosed) {
				return
			}
			u.log.WarnContext(ctx, "the index or the seals of the event store are behind", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// CatchUp brings the index and the seals to the end of the log. The store does it by itself
// every [Config.FollowInterval].
func (s *Store) CatchUp(ctx context.Context) error {
	if s.log == nil {
		return nil
	}
	return errors.Join(s.log.catchUpIndex(ctx), s.log.catchUpSeals(ctx))
}

// Prune deletes what index and seals have of events that the retention of the log has
// deleted; of the seals, what keeps the chain together stays. The store does it by itself
// every hour.
func (s *Store) Prune(ctx context.Context) error {
	if s.log == nil {
		return nil
	}
	return errors.Join(s.log.pruneIndex(ctx), s.log.dropEntries(ctx))
}

// Record stores events before they are published. It is a [bus.PublishMiddleware], for a bus
// on another transport than [Config.Log]; make it the last one of
// [bus.Config.PublishMiddleware], so that it sees what others have made of the events. A
// batch is stored with one insert. What can't be stored is not published; what was stored
// and then could not be published stays, since it may have been.
//
// A bus on the log itself needs no Record, and its events would be there twice with it.
func (s *Store) Record(next bus.PublishFunc) bus.PublishFunc {
	return func(ctx context.Context, batch []transports.Outgoing) error {
		copies := make([]transports.Outgoing, len(batch))
		for i, out := range batch {
			msg := message.NewMessage(out.Message.UUID, out.Message.Payload)
			msg.Metadata = maps.Clone(out.Message.Metadata)
			copies[i] = transports.Outgoing{Topic: out.Topic, Message: msg} // a delayed one is stored now
		}
		err := s.events.add(ctx, copies)
		if err == nil {
			return next(ctx, batch)
		}
		var some *transports.PublishError
		if !errors.As(err, &some) || len(some.Failures) == len(batch) {
			return fmt.Errorf("eventstore: store: %w", err)
		}
		return s.recordRest(ctx, next, batch, some)
	}
}

// recordRest publishes what was stored of a batch.
func (s *Store) recordRest(ctx context.Context, next bus.PublishFunc, batch []transports.Outgoing, some *transports.PublishError) error {
	failed := make(map[int]error, len(some.Failures))
	for _, f := range some.Failures {
		failed[f.Index] = fmt.Errorf("eventstore: store: %w", f.Err)
	}
	var rest []transports.Outgoing
	var places []int // of rest in batch
	for i, out := range batch {
		if failed[i] == nil {
			rest, places = append(rest, out), append(places, i)
		}
	}
	err := next(ctx, rest)
	var sent *transports.PublishError
	switch {
	case errors.As(err, &sent):
		for _, f := range sent.Failures {
			failed[places[f.Index]] = f.Err
		}
	case err != nil:
		for _, i := range places {
			failed[i] = err
		}
	}
	var failures []transports.PublishFailure
	for i := range batch {
		if failed[i] != nil {
			failures = append(failures, transports.PublishFailure{Index: i, Err: failed[i]})
		}
	}
	return transports.BatchError(len(batch), failures)
}

package eventstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Replay says what to send again, and to whom.
type Replay struct {
	// ID names the replay. "" makes a new one, which [Progress] has. A name that is known
	// goes on where it stopped, as [Store.Resume] does.
	ID string

	// Subscription is the one that gets the events, with the bus's prefix: "shop.projection".
	// Required.
	Subscription string

	// Declare makes the subscription with these topic patterns, beginning now, if it does
	// not exist. With none, one that does not exist is an error,
	// [transports.ErrNoSubscription].
	Declare []string

	// Query says which events. The end of the range is that of the log when the replay begins.
	Query Query

	// Control says how.
	Control
}

// Control says how a replay runs; it may change when one goes on.
type Control struct {
	Rate       float64        // most events a second, on average; 0 means no limit
	Batch      int            // events stored at a time, with one wait for another broker, after which the position is; 0 means 500, or what Rate allows in a tenth of a second
	OnProgress func(Progress) // called after each batch, by the goroutine of the replay
}

// Progress is how far a replay has come.
type Progress struct {
	ID           string
	Subscription string
	Sent         int64     // events, by all runs of the replay
	Position     Cursor    // the place up to which all are sent
	Until        Cursor    // the end of the range
	Fraction     float64   // of the places of the range that is behind, from 0 to 1
	Done         bool      // all are sent
	Created      time.Time // by the clock of the store's database
}

// replayRow is a replay as it is kept.
type replayRow struct {
	replaySpec
	ID       string
	Position int64
	Sent     int64
	Done     bool
	Created  time.Time
}

func (r replayRow) progress() Progress {
	p := Progress{
		ID: r.ID, Subscription: r.Subscription, Sent: r.Sent, Position: cursorOf(r.Position), Until: cursorOf(r.Until),
		Fraction: 1, Done: r.Done, Created: r.Created,
	}
	if all := r.Until - r.First; all > 0 && !r.Done {
		p.Fraction = float64(r.Position-r.First) / float64(all)
	}
	return p
}

// replays is where the positions of replays are kept.
type replays interface {
	loadReplay(ctx context.Context, id string) (replayRow, bool, error)
	createReplay(ctx context.Context, row replayRow) error
	listReplays(ctx context.Context) ([]replayRow, error)

	// moveReplay moves on. The error is [ErrReplayTaken] when the row is not from any more.
	moveReplay(ctx context.Context, from, to replayRow) error
}

const defaultBatch = 500

// Replay sends the events of a range to one subscription of a transport, and to no other, in
// the order of their places. They are what they were when they were published, ids and times
// included, with the id of the replay in the extension attribute "replayid", see [ReplayID].
// Deduplication takes each replay for another event.
//
// It returns when all are stored for the subscription, with what was done until then after an
// error. The position is stored with each batch. When the transport has its
// deliveries in the database of the store, that is one transaction, and a replay that was
// interrupted, by SIGKILL too, goes on without a gap and without a copy. To another
// transport, the position is stored when the broker there has confirmed the batch; an
// interrupted replay sends the batch that was under way again, and so do two that run at
// once, before the slower one ends with [ErrReplayTaken]. Deduplication knows the copies.
//
// What the subscription can't decode any more is its own affair, as with any event: it goes
// to the poison queue at once, and the replay goes on.
//
// Errors: [ErrEmptyRange], [ErrExpired], [ErrInvalid], [ErrNoRequeuer],
// [transports.ErrNoSubscription], [ErrReplayTaken].
func (s *Store) Replay(ctx context.Context, target transports.Transport, r Replay) (Progress, error) {
	if err := r.validate(target); err != nil {
		return Progress{}, err
	}
	if r.ID == "" {
		r.ID = uuid.Must(uuid.NewV7()).String()
	}
	row, known, err := s.replays.loadReplay(ctx, r.ID)
	if err != nil {
		return Progress{}, err
	}
	if known {
		if row.Subscription != r.Subscription || !row.Query.same(r.Query) {
			return row.progress(), fmt.Errorf("%w: the replay %s was begun for %q with another query; it can't be changed", ErrInvalid, r.ID, row.Subscription)
		}
		return s.run(ctx, target, row, r.Control)
	}
	if len(r.Declare) > 0 {
		if err := declare(ctx, target, r.Subscription, r.Declare); err != nil {
			return Progress{}, err
		}
	}
	row = replayRow{ID: r.ID, replaySpec: replaySpec{Subscription: r.Subscription, Query: r.Query}}
	if err := s.fixRange(ctx, &row); err != nil {
		return Progress{}, err
	}
	if err := s.subscribed(ctx, target, r.Subscription); err != nil {
		return Progress{}, err
	}
	if err := s.replays.createReplay(ctx, row); err != nil {
		return Progress{}, fmt.Errorf("eventstore: replay: %w", err)
	}
	if row, _, err = s.replays.loadReplay(ctx, row.ID); err != nil { // with the time at which it was made
		return Progress{}, err
	}
	return s.run(ctx, target, row, r.Control)
}

// Resume goes on with a replay that was interrupted, or returns at once when it is done.
func (s *Store) Resume(ctx context.Context, target transports.Transport, id string, c Control) (Progress, error) {
	row, known, err := s.replays.loadReplay(ctx, id)
	if err != nil {
		return Progress{}, err
	}
	if !known {
		return Progress{}, fmt.Errorf("%w: %q", ErrNoReplay, id)
	}
	if err := (Replay{Subscription: row.Subscription, Control: c}).validate(target); err != nil {
		return Progress{}, err
	}
	return s.run(ctx, target, row, c)
}

// Replays returns all replays that the store knows.
func (s *Store) Replays(ctx context.Context) ([]Progress, error) {
	rows, err := s.replays.listReplays(ctx)
	all := make([]Progress, len(rows))
	for i, row := range rows {
		all[i] = row.progress()
	}
	return all, err
}

func (r Replay) validate(target transports.Transport) error {
	faults := []error{r.Query.validate()}
	if r.Subscription == "" {
		faults = append(faults, fmt.Errorf("%w: Subscription is empty", ErrInvalid))
	}
	if r.Rate < 0 {
		faults = append(faults, fmt.Errorf("%w: Rate is %v; it can't be negative", ErrInvalid, r.Rate))
	}
	if r.Batch < 0 || r.Batch > maxPage {
		faults = append(faults, fmt.Errorf("%w: Batch is %d; it takes 1 to %d, or 0 for the default", ErrInvalid, r.Batch, maxPage))
	}
	if len(r.ID) > 255 {
		faults = append(faults, fmt.Errorf("%w: ID has %d bytes; it takes at most 255", ErrInvalid, len(r.ID)))
	}
	if _, ok := target.(transports.Requeuer); !ok {
		faults = append(faults, ErrNoRequeuer)
	}
	return errors.Join(faults...)
}

// same compares without the monotonic clock and the time zone.
func (q Query) same(other Query) bool {
	times := q.From.Equal(other.From) && q.To.Equal(other.To)
	q.From, q.To, other.From, other.To = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return times && fmt.Sprintf("%q", q) == fmt.Sprintf("%q", other)
}

// declare makes a durable subscription that begins now.
func declare(ctx context.Context, target transports.Transport, name string, topics []string) error {
	sub := transports.Subscription{Name: name, Topics: topics, Concurrency: 1}
	if t, ok := target.(*tsql.Transport); ok {
		return t.DeclareSubscription(ctx, sub, tsql.FromNow)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ch, err := target.Subscribe(ctx, sub)
	if err != nil {
		return err
	}
	stop()
	for msg := range ch {
		msg.Nack()
	}
	return nil
}

// subscribed returns an error when the transport can tell that there is no such subscription.
func (s *Store) subscribed(ctx context.Context, target transports.Transport, name string) error {
	d, ok := target.(transports.DepthReporter)
	if !ok {
		return nil // the first event finds out
	}
	if _, err := d.Depth(ctx, name); err != nil {
		return fmt.Errorf("eventstore: replay to %q: %w", name, err)
	}
	return nil
}

// fixRange says where a new replay begins and ends.
func (s *Store) fixRange(ctx context.Context, row *replayRow) error {
	_, frontier, err := s.events.settled(ctx)
	if err != nil {
		return err
	}
	first, _, err := s.events.bounds(ctx)
	if err != nil {
		return err
	}
	r, err := s.rangeOf(ctx, row.Query)
	if err != nil {
		return err
	}
	row.Until = min(frontier, r.UpTo)
	row.First, row.Position = r.After, r.After
	if from := row.Query.From; !from.IsZero() && first > 1 {
		oldest, _, _, err := s.events.read(ctx, tsql.Range{After: first - 1, Limit: 1})
		if err != nil {
			return err
		}
		if len(oldest) > 0 && from.Before(oldest[0].Published) {
			return fmt.Errorf("%w: From is %s, and that one was stored at %s", ErrExpired, from.UTC().Format(time.RFC3339), oldest[0].Published.Format(time.RFC3339))
		}
	}
	for at := row.First; at < row.Until; {
		entries, scanned, more, err := s.next(ctx, row.Query, tsql.Range{Topics: row.Query.Types, After: at, UpTo: row.Until, Limit: defaultBatch})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(entries, row.Query.takes) {
			return nil
		}
		if !more {
			break
		}
		at = scanned
	}
	return ErrEmptyRange
}

package sql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gotidings/tidings/transports"
)

// Follower goes through the log once, in batches, as a durable subscription of its own:
// what it has not had yet is not deleted.
type Follower struct {
	l    *Log
	name string
	g    *group
	seen time.Time
}

// Follower returns the follower of this name, which begins with the oldest message if it is new.
func (l *Log) Follower(ctx context.Context, name string) (*Follower, error) {
	sub := transports.Subscription{Name: name, Topics: []string{"#"}, Concurrency: 1}
	if err := l.t.DeclareSubscription(ctx, sub, FromBeginning); err != nil {
		return nil, err
	}
	f := &Follower{l: l, name: name}
	err := l.t.do(ctx, func(ctx context.Context) (err error) {
		f.g, err = l.t.store.findGroup(ctx, l.t.store.db, sub, "")
		if err == nil && f.g == nil {
			err = errGone
		}
		return err
	})
	return f, err
}

// CatchUp calls fn with what is next until there is nothing left, and returns how many messages
// that were. fn is called in a transaction that also moves the follower on, so that all
// of it happens once or not at all, whoever else follows under the name: what fn writes
// with tx is written once. It may run again when the transaction has to.
func (f *Follower) CatchUp(ctx context.Context, batch int, fn func(ctx context.Context, tx Tx, entries []Entry) error) (int, error) {
	if err := f.l.t.do(ctx, f.l.t.store.catchUp); err != nil {
		return 0, err
	}
	total := 0
	for {
		n, more, err := f.next(ctx, batch, fn)
		total += n
		if err != nil || !more {
			return total, err
		}
	}
}

func (f *Follower) next(ctx context.Context, batch int, fn func(ctx context.Context, tx Tx, entries []Entry) error) (n int, more bool, err error) {
	err = f.l.t.do(ctx, func(ctx context.Context) error {
		s := f.l.t.store
		return s.inTx(ctx, func(tx Tx) error {
			n = 0
			r, err := s.dialect.lockSubscription(ctx, s, tx, f.g.id)
			if err != nil {
				return err
			}
			old := r
			g := *f.g
			found, err := s.findNext(ctx, tx, &g, &r, batch)
			if err != nil {
				return err
			}
			more = found.more
			if found.claim != nil {
				ids := slices.Sorted(slices.Values(found.claim.ids)) // late ones are in another order
				for len(ids) > 0 {
					entries, m, err := s.loadEntries(ctx, tx, ids, false)
					if err != nil {
						return err
					}
					if err := fn(ctx, tx, entries); err != nil {
						return err
					}
					n += len(entries)
					ids = ids[m:]
				}
			}
			const alive = time.Minute // for ExpireAfter, which is of days
			if r.position == old.position && r.latePosition == old.latePosition && time.Since(f.seen) < alive {
				return nil
			}
			f.seen = time.Now()
			_, err = s.exec(ctx, tx, `update {subscriptions} set position = ?, late_position = ?, seen_ms = {now} where id = ?`, r.position, r.latePosition, f.g.id)
			return err
		})
	})
	if errors.Is(err, errGone) {
		err = fmt.Errorf("%w: %q", err, f.name)
	}
	return n, more, err
}

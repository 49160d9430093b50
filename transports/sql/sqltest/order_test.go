package sqltest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// spied returns a pool on the database of b whose statements are shown to before.
func (b backend) spied(t *testing.T, before func(query string, args []driver.NamedValue)) *sql.DB {
	t.Helper()
	if b.cfg.Dialect == tsql.SQLite {
		var seq int
		var name, file string
		if err := b.QueryRowContext(t.Context(), "pragma database_list").Scan(&seq, &name, &file); err != nil {
			t.Fatal(err)
		}
		return testsql.Spied(t, b.DB, testsql.SQLiteDSN(file), before)
	}
	return testsql.Spied(t, b.DB, testsql.Servers[b.cfg.Dialect].DSN(t), before)
}

// lateCommit is a schedule of two events, of which one is published after the other was
// committed: the first fills a gap below the position, the second is above the frontier. It
// runs between two statements of a claim, of which one has looked for late arrivals.
type lateCommit struct {
	t     *testing.T
	b     backend
	other *tsql.Transport // moves the frontier
	first *sql.Tx         // of the event first, which is in a gap
	once  sync.Once
	ready chan struct{} // closed: the claim that follows is the one
}

func (l *lateCommit) before(query string, _ []driver.NamedValue) {
	select {
	case <-l.ready:
	default:
		return
	}
	if !strings.Contains(query, "as kind") { // the statement that finds the next range
		return
	}
	l.once.Do(func() {
		ctx := context.Background()
		if err := l.first.Commit(); err != nil {
			l.t.Error(err)
		}
		if err := l.other.PublishBatch(ctx, outgoing("a", "second")); err != nil {
			l.t.Error(err)
		}
		if _, _, err := l.other.Log().Settled(ctx); err != nil { // moves the frontier
			l.t.Error(err)
		}
	})
}

func newLateCommit(t *testing.T, b backend) (*lateCommit, *sql.DB) {
	t.Helper()
	l := &lateCommit{t: t, b: b, other: testsql.NewTransport(t, b.DB, b.cfg), ready: make(chan struct{})}
	return l, b.spied(t, l.before)
}

// open opens the transaction of the first event, and has others pass it.
func (l *lateCommit) open() {
	l.t.Helper()
	l.first = begin(l.t, l.b.DB)
	publishTx(l.t, l.other, l.first, "a", "first")
	publish(l.t, l.other, "a", "passes")
	if _, _, err := l.other.Log().Settled(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// An advance between the two statements of a claim is seen by both or by neither: one that
// saw the frontier alone would deliver the second event before the first.
func TestAdvanceWithinAClaim(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			if b.cfg.Dialect == tsql.SQLite {
				t.Skip("SQLite has one writer at a time, so nothing arrives late")
			}
			l, db := newLateCommit(t, b)
			b.cfg.PollInterval = 20 * time.Millisecond
			tr := testsql.NewTransport(t, db, b.cfg)
			s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1, Ordered: true}
			ch, err := tr.Subscribe(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			l.open()
			ackInOrder(t, ch, "passes")
			close(l.ready)
			publish(t, l.other, "b", "has the consumer claim")
			ackInOrder(t, ch, "first", "second")
		})
	}
}

// The same for a follower of the log.
func TestAdvanceWithinAFollowersBatch(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			if b.cfg.Dialect == tsql.SQLite {
				t.Skip("SQLite has one writer at a time, so nothing arrives late")
			}
			l, db := newLateCommit(t, b)
			tr := testsql.NewTransport(t, db, b.cfg)
			follower, err := tr.Log().Follower(t.Context(), "f")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			note := func(_ context.Context, _ tsql.Tx, entries []tsql.Entry) error {
				for _, e := range entries {
					got = append(got, e.Message.UUID)
				}
				return nil
			}
			l.open()
			for _, prepare := range []func(){func() {}, func() { close(l.ready) }, func() {}} {
				prepare()
				if _, err := follower.CatchUp(t.Context(), 100, note); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(got, []string{"passes", "first", "second"}) {
				t.Errorf("followed %q; want the first before the second", got)
			}
		})
	}
}

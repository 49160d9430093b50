package sqltest

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

var adversaryFor = flag.Duration("adversary", 3*time.Second, "how long the adversary of the order publishes")

// published is when the publishing of an event began, and when its commit had returned.
type published struct{ begun, committed time.Time }

// orderAdversary publishes as fast as it can, beside transactions that stay open and ones
// that are rolled back, so that events come late all the time.
type orderAdversary struct {
	b  backend
	tr *tsql.Transport

	mu     sync.Mutex // guards ledger
	ledger map[string]published
}

func (a *orderAdversary) note(begun time.Time, ids ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		a.ledger[id] = published{begun, time.Now()}
	}
}

// publish publishes one event after the other until ctx ends.
func (a *orderAdversary) publish(ctx context.Context, name string) error {
	for i := 0; ctx.Err() == nil; i++ {
		id, begun := fmt.Sprint(name, "-", i), time.Now()
		if err := a.tr.PublishBatch(context.WithoutCancel(ctx), outgoing("a", id)); err != nil {
			return err
		}
		a.note(begun, id)
	}
	return nil
}

var isolationLevels = []sql.IsolationLevel{sql.LevelReadUncommitted, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable}

// linger publishes in transactions of all isolation levels that stay open, some of which are
// rolled back, some to a savepoint.
func (a *orderAdversary) linger(ctx context.Context, name string, most time.Duration, seed uint64) error {
	random := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // reproducible
	for i := 0; ctx.Err() == nil; i++ {
		id, begun := fmt.Sprint(name, "-", i), time.Now()
		tx, err := a.b.BeginTx(context.WithoutCancel(ctx), &sql.TxOptions{Isolation: isolationLevels[random.IntN(len(isolationLevels))]})
		if err != nil {
			return err
		}
		if err := a.within(context.WithoutCancel(ctx), tx, id, random.IntN(4) == 0); err != nil {
			_ = tx.Rollback() // the error is reported
			return err
		}
		select {
		case <-time.After(time.Duration(random.Int64N(int64(most)))):
		case <-ctx.Done():
		}
		if random.IntN(4) == 0 {
			if err := tx.Rollback(); err != nil {
				return err
			}
			continue
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		a.note(begun, id)
	}
	return nil
}

// within publishes an event in tx, and before that one that is taken back, if asked to.
func (a *orderAdversary) within(ctx context.Context, tx *sql.Tx, id string, takesBack bool) error {
	if takesBack {
		if _, err := tx.ExecContext(ctx, "savepoint s"); err != nil {
			return err
		}
		if err := a.tr.PublishTx(ctx, tx, outgoing("a", id+"-taken-back")...); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "rollback to savepoint s"); err != nil {
			return err
		}
	}
	return a.tr.PublishTx(ctx, tx, outgoing("a", id)...)
}

// check counts what is missing, what came twice, and what came before an event that had
// been committed when its own publishing began.
func (a *orderAdversary) check(t *testing.T, received []string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := make(map[string]bool)
	var newest time.Time // the latest beginning of what has been received
	inversions, unknown, doubles := 0, 0, 0
	for _, id := range received {
		p, known := a.ledger[id]
		switch {
		case !known:
			unknown++
		case seen[id]:
			doubles++
		case p.committed.Before(newest):
			inversions++
		}
		seen[id] = true
		if p.begun.After(newest) {
			newest = p.begun
		}
	}
	t.Logf("%d events", len(received))
	if missing := len(a.ledger) - len(seen); inversions != 0 || unknown != 0 || doubles != 0 || missing != 0 {
		t.Errorf("of %d events %d came before an event that had been committed when they were published, %d were never committed, %d came twice, %d are missing",
			len(a.ledger), inversions, unknown, doubles, missing)
	}
}

// Of two events, the one that was committed before the other was published comes first to an
// ordered subscription, whatever else is open, late or rolled back.
//
//nolint:paralleltest // it keeps the machine busy
func TestOrderUnderAnAdversary(t *testing.T) {
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			if b.cfg.Dialect == tsql.SQLite {
				t.Skip("SQLite has one writer at a time, so nothing arrives late")
			}
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			ch, err := tr.Subscribe(t.Context(), transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1, Ordered: true})
			if err != nil {
				t.Fatal(err)
			}
			a := &orderAdversary{b: b, tr: testsql.NewTransport(t, b.DB, b.cfg), ledger: make(map[string]published)}
			ctx, cancel := context.WithTimeout(t.Context(), *adversaryFor)
			defer cancel()
			errs := make(chan error)
			workers := 0
			work := func(fn func() error) {
				workers++
				go func() { errs <- fn() }()
			}
			for i := range 6 {
				work(func() error { return a.publish(ctx, fmt.Sprint("quick", i)) })
			}
			for i, most := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 500 * time.Millisecond, *adversaryFor} {
				work(func() error { return a.linger(ctx, fmt.Sprint("slow", i), most, uint64(i)) })
			}
			var received []string
			for workers > 0 {
				select {
				case msg := <-ch:
					received = append(received, msg.UUID)
					msg.Ack()
				case err := <-errs:
					workers--
					if err != nil {
						t.Error(err)
						cancel()
					}
				}
			}
			publish(t, a.tr, "a", "the last")
			a.note(time.Now(), "the last")
			for len(received) == 0 || received[len(received)-1] != "the last" {
				msg := receive(t, ch)
				received = append(received, msg.UUID)
				msg.Ack()
			}
			a.check(t, received)
		})
	}
}

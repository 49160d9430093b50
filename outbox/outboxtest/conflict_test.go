package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Two subscriptions change the same rows in opposite order: each deadlock is retried, and no
// event is poisoned for it although the policy retries nothing.
func TestDeadlocksOfHandlersAreNotCounted(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		if db.dialect == tsql.Postgres { // it would take a second to find each
			db.DB = openDB(t, db.driver, db.dsn+"&deadlock_timeout=20ms")
		}
		mustExec(t, db.DB, "create table stock (id integer primary key, n integer not null)")
		mustExec(t, db.DB, "insert into stock values (1, 0), (2, 0)")
		tr, err := memory.New(memory.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tr.Close() }()
		ib := newInbox(t, db, inbox.Config{})
		b, err := bus.New(tr, bus.Config{Source: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		var again atomic.Int64
		for name, rows := range map[string][2]int{"up": {1, 2}, "down": {2, 1}} {
			inbox.Subscribe(b, ib, name, func(ctx context.Context, tx *sql.Tx, _ ordered) error {
				for _, row := range rows {
					if _, err := tx.ExecContext(ctx, "update stock set n = n + 1 where id = "+strconv.Itoa(row)); err != nil {
						again.Add(1)
						return fmt.Errorf("row %d: %w", row, err)
					}
					<-time.After(time.Millisecond) // the other one takes its first row
				}
				return nil
			}, bus.Concurrency(4), bus.Retry(bus.NoRetry()))
		}
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		const n = 40
		for i := range n {
			if err := b.Publish(t.Context(), ordered{N: i}); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "all events are handled or poisoned", func() bool {
			return count(t, db.DB, "select count(*) from tidings_inbox")+poisoned(t, tr, "shop.up", "shop.down") == 2*n
		})
		if err := b.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if p := poisoned(t, tr, "shop.up", "shop.down"); p != 0 {
			t.Errorf("%d of %d deliveries are poisoned", p, 2*n)
		}
		if got := count(t, db.DB, "select n from stock where id = 1"); got != 2*n {
			t.Errorf("%d effects; want %d", got, 2*n)
		}
		t.Logf("%d conflicts", again.Load())
	})
}

func poisoned(t *testing.T, tr transports.PoisonQueue, subscriptions ...string) (n int) {
	t.Helper()
	for _, s := range subscriptions {
		for _, err := range tr.Poisoned(t.Context(), s, transports.PoisonPage{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	return n
}

// stateError is what a driver says of a conflict.
type stateError string

func (e stateError) Error() string    { return "driver says " + string(e) }
func (e stateError) SQLState() string { return string(e) }

// A verdict of the handler is its own, also when it is about a conflict.
func TestVerdictOnAConflict(t *testing.T) {
	t.Parallel()
	db := newSQLite(t)
	ib := newInbox(t, db, inbox.Config{})
	runs := 0
	for name, c := range map[string]struct {
		err     error
		atLeast int
		atMost  int
	}{
		"verdict": {bus.Permanent(stateError("40001")), 1, 1},
		"other":   {errRefused, 1, 1},
	} {
		runs = 0
		h := inbox.Handler(ib, func(context.Context, *sql.Tx, ordered) error { runs++; return c.err })
		err := h(handling(t, events.Metadata{ID: name, Source: "s", Subscription: "x"}), ordered{})
		if !errors.Is(err, c.err) || runs < c.atLeast || runs > c.atMost {
			t.Errorf("%s: %v after %d runs", name, err, runs)
		}
	}
	if n := count(t, db.DB, "select count(*) from tidings_inbox"); n != 0 {
		t.Errorf("%d marks", n)
	}
}

// A handler that keeps the error of a deadlock for itself has had its transaction rolled back,
// the mark with it, and MySQL commits nothing without a word. It is handled again.
func TestSwallowedDeadlockIsNotDone(t *testing.T) {
	t.Parallel()
	db := newMySQL(t)
	mustExec(t, db.DB, "create table stock (id integer primary key, n integer not null)")
	mustExec(t, db.DB, "insert into stock values (1, 0), (2, 0)")
	mustExec(t, db.DB, "create table other (id integer primary key)")
	ib := newInbox(t, db, inbox.Config{})
	runs, swallowed := 0, 0
	h := inbox.Handler(ib, func(ctx context.Context, tx *sql.Tx, _ ordered) error {
		runs++
		if swallowed > 0 {
			_, err := tx.ExecContext(ctx, "update stock set n = 100 where id in (1, 2)")
			return err
		}
		if _, err := tx.ExecContext(ctx, "update stock set n = n + 1 where id = 1"); err != nil {
			return err
		}
		// The other one has the second row, has written more, and waits for the first.
		other, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		for i := range 20 {
			if _, err := other.ExecContext(ctx, "insert into other values ("+strconv.Itoa(i)+")"); err != nil {
				return errors.Join(err, other.Rollback())
			}
		}
		if _, err := other.ExecContext(ctx, "update stock set n = n + 1 where id = 2"); err != nil {
			return errors.Join(err, other.Rollback())
		}
		done := make(chan error, 1)
		go func() {
			_, err := other.ExecContext(ctx, "update stock set n = n + 1 where id = 1")
			done <- errors.Join(err, other.Rollback())
		}()
		<-time.After(300 * time.Millisecond) // most often it waits by now; if not, this is repeated
		if _, err := tx.ExecContext(ctx, "update stock set n = n + 1 where id = 2"); err != nil {
			swallowed++ // and not returned
		}
		if err := <-done; swallowed == 0 {
			return errors.Join(err, stateError("40001")) // the other one was the victim: once more
		}
		return nil
	})
	if err := h(handling(t, events.Metadata{ID: "1", Source: "s", Subscription: "x"}), ordered{}); err != nil {
		t.Fatal(err)
	}
	marks, effect := count(t, db.DB, "select count(*) from tidings_inbox"), count(t, db.DB, "select n from stock where id = 1")
	if swallowed != 1 || marks != 1 || effect != 100 {
		t.Errorf("after %d runs, with %d errors that were not returned: %d marks, effect %d; want 1 and 100", runs, swallowed, marks, effect)
	}
}

// Whatever isolation level the sessions have as their default, everything works.
func TestDefaultIsolation(t *testing.T) {
	t.Parallel()
	for name, parameter := range map[string][2]string{
		"postgres": {"default_transaction_isolation", "%s"}, "mysql": {"transaction_isolation", "'%s'"},
	} {
		for _, level := range []string{"read committed", "repeatable read", "serializable"} {
			t.Run(name+"/"+level, func(t *testing.T) {
				t.Parallel()
				parameter, level := parameter, level
				db := databases[name](t)
				if db.dialect == tsql.MySQL {
					level = strings.ToUpper(strings.ReplaceAll(level, " ", "-"))
					var variable, value string
					if err := db.QueryRowContext(t.Context(), "show variables like '%x\\_isolation'").Scan(&variable, &value); err == nil {
						parameter[0] = variable // tx_isolation before MariaDB 11
					}
				}
				separator := "?"
				if strings.Contains(db.dsn, "?") {
					separator = "&"
				}
				db.dsn += separator + parameter[0] + "=" + url.PathEscape(fmt.Sprintf(parameter[1], level))
				db.DB = openDB(t, db.driver, db.dsn)
				ob, ib := newOutbox(t, db), newInbox(t, db, inbox.Config{})
				mustExec(t, db.DB, "create table effects (id integer primary key, n integer not null)")
				mustExec(t, db.DB, "insert into effects values (1, 0)")
				buses := make([]*bus.Bus, 2) // two processes share the subscription
				for i := range buses {
					tr, err := tsql.New(t.Context(), openDB(t, db.driver, db.dsn), tsql.Config{PollInterval: 10 * time.Millisecond})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = tr.Close() })
					b, err := bus.New(tr, bus.Config{Source: "shop"})
					if err != nil {
						t.Fatal(err)
					}
					inbox.Subscribe(b, ib, "s", func(ctx context.Context, tx *sql.Tx, _ ordered) error {
						_, err := tx.ExecContext(ctx, "update effects set n = n + 1 where id = 1")
						return err
					}, bus.Concurrency(4), bus.Retry(bus.NoRetry()))
					if err := b.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
					buses[i] = b
				}
				const n = 60
				for i := range n / 2 {
					commit(t, ob, ordered{N: i})
					if err := buses[i%2].Publish(t.Context(), ordered{N: i}); err != nil {
						t.Fatal(err)
					}
				}
				until(t, "all events are handled or poisoned", func() bool {
					return count(t, db.DB, "select n from effects")+poisoned(t, ob.Transport(), "shop.s") == n
				})
				if p := poisoned(t, ob.Transport(), "shop.s"); p != 0 {
					t.Errorf("%d events are poisoned", p)
				}
				for _, b := range buses {
					if err := b.Shutdown(context.Background()); err != nil {
						t.Error(err)
					}
				}
				eventually(t, db.DB, 0, "select count(*) from tidings_claims")
			})
		}
	}
}

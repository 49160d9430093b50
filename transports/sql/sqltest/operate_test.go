package sqltest

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Processes that start at a time all find the tables, made once.
func TestMigrateConcurrently(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			var starting sync.WaitGroup
			for range 8 {
				starting.Go(func() {
					if err := tsql.Migrate(t.Context(), b.DB, b.cfg); err != nil {
						t.Error(err)
					}
				})
			}
			starting.Wait()
			if n := scalar(t, b.DB, "select count(*) from "+b.table("migrations")); n != 1 {
				t.Errorf("%d versions are noted; want 1", n)
			}
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			if err := tr.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Services with prefixes of their own start for the first time at the same moment, in a schema
// that none of them has made yet.
func TestFirstStartOfManyServices(t *testing.T) {
	t.Parallel()
	for range 4 {
		db, cfg := testsql.Postgres(t)
		var starting sync.WaitGroup
		for i := range 6 {
			for _, start := range []func(ctx context.Context) error{
				func(ctx context.Context) error {
					cfg := cfg
					cfg.Prefix = fmt.Sprintf("service%d_", i)
					_, err := tsql.New(ctx, db, cfg)
					return err
				},
				func(ctx context.Context) error {
					ib, err := inbox.New(ctx, inbox.Config{DB: db, Schema: cfg.Schema, Prefix: fmt.Sprintf("service%d_", i)})
					if err == nil {
						err = ib.Close()
					}
					return err
				},
			} {
				starting.Go(func() {
					if err := start(t.Context()); err != nil {
						t.Errorf("service %d: %v", i, err)
					}
				})
			}
		}
		starting.Wait()
	}
}

// Of those that are the first to open a SQLite file at a time, all but one can be refused,
// now and then, which TestMigrateConcurrently sees seldom.
func TestOpenNewSQLite(t *testing.T) {
	t.Parallel()
	opened, cfg := testsql.SQLite(t)
	tries := 0
	db := sql.OpenDB(connectorFunc(func() (driver.Conn, error) {
		if tries++; tries <= 3 {
			return nil, errors.New("database is locked (5) (SQLITE_BUSY)")
		}
		return opened.Driver().Open(testsql.SQLiteDSN(filepath.Join(t.TempDir(), "new.db")))
	}))
	if err := tsql.Migrate(t.Context(), db, cfg); err != nil || tries != 4 {
		t.Errorf("after %d tries: %v; want the fourth to do", tries, err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

type connectorFunc func() (driver.Conn, error)

func (f connectorFunc) Connect(context.Context) (driver.Conn, error) { return f() }

func (connectorFunc) Driver() driver.Driver { return nil }

// What MigrationSQL prints makes the same tables.
func TestMigrateByHand(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			b.cfg.NoMigrate = true
			if _, err := tsql.New(t.Context(), b.DB, b.cfg); err == nil || !strings.Contains(err.Error(), "run Migrate") {
				t.Errorf("without tables: %v; want advice", err)
			}
			if b.cfg.Schema != "" {
				execute(t, b, `create schema "`+b.cfg.Schema+`"`)
			}
			versions, err := tsql.MigrationSQL(b.cfg)
			if err != nil {
				t.Fatal(err)
			}
			for _, statement := range slices.Concat(versions...) {
				execute(t, b, statement)
			}
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			ch := subscribe(t.Context(), t, tr, "s", 1, "a")
			publish(t, tr, "a", "1")
			ackInOrder(t, ch, "1")
		})
	}
}

func TestTableOfSomebodyElse(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			if err := tsql.Migrate(t.Context(), b.DB, b.cfg); err != nil {
				t.Fatal(err)
			}
			execute(t, b, "drop table "+b.table("scheduled"))
			execute(t, b, "create table "+b.table("scheduled")+" (id integer, at integer)")
			if _, err := tsql.New(t.Context(), b.DB, b.cfg); err == nil || !strings.Contains(err.Error(), "scheduled") {
				t.Errorf("New: %v; want the name of the table", err)
			}
		})
	}
}

// A restored backup whose numbers begin again would hide what is published.
func TestNumbersBehindThePositions(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			if err := tr.DeclareSubscription(t.Context(), transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1}, tsql.FromNow); err != nil {
				t.Fatal(err)
			}
			execute(t, b, "update "+b.table("subscriptions")+" set position = 1000")
			if _, err := tsql.New(t.Context(), b.DB, b.cfg); err == nil || !strings.Contains(err.Error(), "never be seen") && !strings.Contains(err.Error(), "never") {
				t.Errorf("New: %v; want a refusal", err)
			}
		})
	}
}

// Everything works with one connection.
func TestPoolOfOne(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			b.SetMaxOpenConns(1)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ch := subscribe(ctx, t, tr, "s", 4, "a")
			subscribe(ctx, t, tr, "other", 4, "#")
			publish(t, tr, "a", "1", "2", "3")
			for _, msg := range []string{"1", "2", "3"} {
				got := receive(t, ch)
				if err := tr.Requeue(t.Context(), "s", got, 0); err != nil {
					t.Fatal(msg, err)
				}
				got.Ack()
			}
			ackAll(t, ch, "1", "2", "3")
			if _, err := tr.Depth(t.Context(), "s"); err != nil {
				t.Error(err)
			}
			tx := begin(t, b.DB)
			publishTx(t, tr, tx, "a", "4")
			commit(t, tx)
			tr.Wake()
			ackInOrder(t, ch, "4")
		})
	}
}

// A transaction that rolls back has published nothing, and one that can't publish says so.
func TestPublishTx(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			b.cfg.MaxMessageBytes = 10
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			ch := subscribe(t.Context(), t, tr, "s", 4, "a")
			tx := begin(t, b.DB)
			publishTx(t, tr, tx, "a", "no")
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			tx = begin(t, b.DB)
			batch := outgoing("a", "1", "2")
			batch[1].Message.Payload = make([]byte, 11)
			if err := tr.PublishTx(t.Context(), tx, batch...); !errors.Is(err, transports.ErrTooLarge) {
				t.Errorf("got %v; want ErrTooLarge", err)
			}
			later := outgoing("a", "later")
			later[0].Delay = 300 * time.Millisecond
			began := time.Now()
			if err := tr.PublishTx(t.Context(), tx, append(outgoing("a", "1"), later...)...); err != nil {
				t.Fatal(err)
			}
			if b.cfg.Dialect != tsql.SQLite { // where the consumers would wait for this transaction
				wantQuiet(t, ch)
			}
			commit(t, tx)
			tr.Wake()
			ackInOrder(t, ch, "1", "later")
			if took := time.Since(began); took < 290*time.Millisecond {
				t.Errorf("what was delayed came after %s", took)
			}
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
			tx = begin(t, b.DB)
			if err := tr.PublishTx(t.Context(), tx, outgoing("a", "2")...); !errors.Is(err, transports.ErrClosed) {
				t.Errorf("got %v; want ErrClosed", err)
			}
			_ = tx.Rollback()
		})
	}
}

// Long names are told apart to their last byte, and are refused beyond the limit.
func TestLongNames(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			long := strings.Repeat("é", 499) + "x"
			one, two := subscribe(t.Context(), t, tr, long+"1", 1, long+"1"), subscribe(t.Context(), t, tr, long+"2", 1, long+"2")
			upper := subscribe(t.Context(), t, tr, "UPPER", 1, long+"1")
			lower := subscribe(t.Context(), t, tr, "upper", 1, strings.ToUpper(long)+"1")
			publish(t, tr, long+"1", "1")
			publish(t, tr, long+"2", "2")
			ackInOrder(t, one, "1")
			ackInOrder(t, two, "2")
			ackInOrder(t, upper, "1")
			wantQuiet(t, lower)
			if err := tr.Publish(long+"12", newMessage("3")); err == nil {
				t.Error("a topic of 1,001 bytes is accepted")
			}
			for _, s := range []transports.Subscription{
				{Name: long + "12", Topics: []string{"a"}, Concurrency: 1}, {Name: "s", Topics: []string{long + "12"}, Concurrency: 1},
			} {
				if _, err := tr.Subscribe(t.Context(), s); err == nil {
					t.Error("a name of 1,001 bytes is accepted")
				}
			}
			if err := tr.Publish("a", newMessage("\xff")); err == nil {
				t.Error("an id that is no text is accepted")
			}
		})
	}
}

func TestFromBeginning(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			publish(t, tr, "a", "1", "2")
			s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1}
			if err := tr.DeclareSubscription(t.Context(), s, tsql.FromBeginning); err != nil {
				t.Fatal(err)
			}
			publish(t, tr, "a", "3")
			ackInOrder(t, subscribe(t.Context(), t, tr, "s", 1, "a"), "1", "2", "3")
			s.Ephemeral = true
			if err := tr.DeclareSubscription(t.Context(), s, tsql.FromNow); err == nil {
				t.Error("an ephemeral subscription without a consumer is accepted")
			}
		})
	}
}

// buffer is a log that can be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// wait waits until all of these are in it.
func (b *buffer) wait(t *testing.T, words ...string) {
	t.Helper()
	end := time.Now().Add(deadline)
	for _, word := range words {
		for !strings.Contains(b.String(), word) {
			if time.Now().After(end) {
				t.Fatalf("no %q in %q", word, b.String())
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// A subscription that nobody consumes is warned of, and removed when the configuration
// says so. Then what it held up is deleted.
func TestAbandonedSubscription(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			for _, s := range []string{"abandoned", "young"} {
				if err := tr.DeclareSubscription(t.Context(), transports.Subscription{Name: s, Topics: []string{"a"}, Concurrency: 1}, tsql.FromNow); err != nil {
					t.Fatal(err)
				}
			}
			publish(t, tr, "a", "1")
			publish(t, tr, "b", "2")
			execute(t, b, "update "+b.table("messages")+" set published_ms = published_ms - 3600000")
			var log buffer
			b.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			b.cfg.LagWarning = time.Minute
			ctx, stop := context.WithCancel(t.Context())
			warned := testsql.NewTransport(t, b.DB, b.cfg)
			ch := subscribe(ctx, t, warned, "s", 1, "c")
			publish(t, warned, "c", "3")
			ackInOrder(t, ch, "3")
			log.wait(t, "lags", "abandoned")
			stop()

			execute(t, b, "update "+b.table("subscriptions")+" set seen_ms = seen_ms - 3600000 where name = 'abandoned'")
			b.cfg.ExpireAfter = time.Minute
			expired := testsql.NewTransport(t, b.DB, b.cfg)
			ch = subscribe(t.Context(), t, expired, "s", 1, "c")
			publish(t, expired, "c", "4")
			ackInOrder(t, ch, "4")
			eventually(t, b.DB, 0, "select count(*) from "+b.table("subscriptions")+" where name = 'abandoned'")
			if n := scalar(t, b.DB, "select count(*) from "+b.table("subscriptions")); n != 2 {
				t.Errorf("%d subscriptions are left; want 2", n)
			}
			log.wait(t, "removed")
		})
	}
}

// Names of tables are quoted.
func TestOddNames(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.SQLite(t)
	cfg.Prefix = `o"d ; drop table x`
	tr := testsql.NewTransport(t, db, cfg)
	ch := subscribe(t.Context(), t, tr, `s'"`, 1, `a'"`)
	publish(t, tr, `a'"`, `1'"`)
	ackInOrder(t, ch, `1'"`)

	pg, cfg := testsql.Postgres(t)
	cfg.Prefix = `O"d ' `
	tr = testsql.NewTransport(t, pg, cfg)
	ch = subscribe(t.Context(), t, tr, `s'"`, 1, `a'"\`)
	publish(t, tr, `a'"\`, `1'"\`, `{2}`)
	ackInOrder(t, ch, `1'"\`, `{2}`)
}

// The kind of the database need not be told.
func TestDetect(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			b.cfg.Dialect = ""
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			ch := subscribe(t.Context(), t, tr, "s", 1, "a")
			publish(t, tr, "a", "1")
			ackInOrder(t, ch, "1")
		})
	}
}

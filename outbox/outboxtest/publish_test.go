package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
)

// What is committed is sent, what is rolled back is not, and order of a key is kept.
func TestCommittedIsSentAndRolledBackIsNot(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ob := newOutbox(t, db)
		d := newDestination()
		errBack := errors.New("roll back")
		for i := range 20 {
			err := ob.InTx(t.Context(), nil, func(ctx context.Context, tx *sql.Tx) error {
				id := strconv.Itoa(i)
				if err := ob.Publish(ctx, tx, outbox.With(ordered{N: i, Key: "k"}, bus.WithID(id))); err != nil {
					return err
				}
				if i%2 == 1 {
					return errBack
				}
				return nil
			})
			if i%2 == 1 && !errors.Is(err, errBack) || i%2 == 0 && err != nil {
				t.Fatalf("%d: %v", i, err)
			}
		}
		_, stop := runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d})
		d.await(t, 10)
		commit(t, ob, outbox.With(ordered{Key: "k"}, bus.WithID("last")))
		got := d.await(t, 11)
		stop()
		want := "0 2 4 6 8 10 12 14 16 18 last"
		if ids := strings.Join(d.ids(), " "); ids != want {
			t.Errorf("sent %s; want %s", ids, want)
		}
		md := events.DecodeMetadata(got[0].Message.UUID, got[0].Message.Metadata)
		if md.Source != "shop" || md.Type != "order.created" || md.PartitionKey != "k" || md.CorrelationID != "0" || got[0].Topic != "order.created" || string(got[0].Message.Payload) != `{"n":0,"key":"k"}` {
			t.Errorf("sent %+v %s to %s", md, got[0].Message.Payload, got[0].Topic)
		}
		eventually(t, db.DB, 0, "select count(*) from tidings_claims")
		stats, err := ob.Stats(t.Context())
		if err != nil || len(stats) != 1 || stats[0] != (outbox.Stats{Name: "d"}) {
			t.Errorf("stats %+v, %v", stats, err)
		}
	})
}

func TestPgxTransaction(t *testing.T) {
	t.Parallel()
	db := newPostgres(t)
	ob := newOutbox(t, db)
	conn, err := pgx.Connect(t.Context(), db.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	d := newDestination()
	runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d})
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := ob.Publish(t.Context(), outbox.Pgx(tx), ordered{N: 1}, ordered{N: 2}); err != nil {
		t.Fatal(err)
	}
	if err := ob.Publish(t.Context(), outbox.Pgx(tx), outbox.With(ordered{N: 3}, bus.WithDelay(time.Millisecond))); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.await(t, 3)
	if err := ob.Publish(t.Context(), outbox.Pgx(tx), ordered{N: 4}); !errors.Is(err, pgx.ErrTxClosed) {
		t.Errorf("publish in a transaction that has ended: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ctx := t.Context()
		if _, err := outbox.New(ctx, outbox.Config{DB: db.DB, Source: "shop", NoMigrate: true}); err == nil || !strings.Contains(err.Error(), "Migrate") {
			t.Errorf("without the schema: %v", err)
		}
		ob := newOutbox(t, db, func(c *outbox.Config) { c.MaxMessageBytes = 1000 })
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		large := ordered{Key: strings.Repeat("x", 1001)}
		if err := ob.Publish(ctx, tx, ordered{N: 1}, large); !errors.Is(err, transports.ErrTooLarge) {
			t.Errorf("too large: %v", err)
		}
		if err := ob.Publish(ctx, tx, struct{}{}); err == nil {
			t.Error("a type without a name is published")
		}
		if err := ob.Publish(ctx, tx); err != nil {
			t.Errorf("nothing: %v", err)
		}
		// None of it has spoiled the transaction, or has written.
		if err := ob.Publish(ctx, tx, ordered{N: 2}); err != nil {
			t.Errorf("the transaction is spoiled: %v", err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := ob.Publish(ctx, tx, ordered{N: 3}); !errors.Is(err, sql.ErrTxDone) || !strings.Contains(err.Error(), "transaction has ended") {
			t.Errorf("after the commit: %v", err)
		}
		if n := count(t, db.DB, "select count(*) from tidings_messages"); n != 1 {
			t.Errorf("%d events are written", n)
		}
	})
}

func TestConfigFaultsAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := outbox.New(t.Context(), outbox.Config{PublishMiddleware: []bus.PublishMiddleware{nil}})
	for _, want := range []string{"DB is nil", "Source is empty", "PublishMiddleware[0]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q in it", err, want)
		}
	}
	ob := newOutbox(t, newSQLite(t))
	_, err = outbox.NewRelay(ob, outbox.RelayConfig{Batch: -1, Lanes: -1, Attempts: -1, MinDelay: 2, MaxDelay: 1, Lease: 1, SettleTimeout: -1, Start: 7})
	for _, want := range []string{"Name", "To is nil", "Batch", "Lanes", "Attempts", "MinDelay", "Lease", "SettleTimeout", "Start"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q in it", err, want)
		}
	}
}

// counting counts the statements in a transaction.
type counting struct {
	*sql.Tx
	n int
}

func (c *counting) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	c.n++
	return c.Tx.ExecContext(ctx, query, args...)
}

func (c *counting) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	c.n++
	return c.Tx.QueryContext(ctx, query, args...)
}

func TestPublishIsOneStatement(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ob := newOutbox(t, db)
		delayed := func(n int) any { return outbox.With(ordered{N: n}, bus.WithDelay(time.Hour)) }
		want := 1
		if db.driver == "mysql" {
			want = 2 // counting hides the *sql.Tx, so the server is asked for an XA branch
		}
		for _, tt := range []struct {
			name   string
			events []any
		}{
			{"one", []any{ordered{N: 1}}},
			{"many", []any{ordered{N: 1}, ordered{N: 2}, ordered{N: 3}}},
			{"delayed", []any{delayed(1), delayed(2), delayed(3)}},
		} {
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			c := &counting{Tx: tx}
			if err := ob.Publish(t.Context(), c, tt.events...); err != nil || c.n != want {
				t.Errorf("%s: %d statements, %v", tt.name, c.n, err)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if n, s := count(t, db.DB, "select count(*) from tidings_messages"), count(t, db.DB, "select count(*) from tidings_scheduled"); n != 4 || s != 3 {
			t.Errorf("%d and %d rows", n, s)
		}
	})
}

// An event that is published in the handler of another one names it as its cause.
func TestPublishInheritsFromTheEventBeingHandled(t *testing.T) {
	t.Parallel()
	db := newSQLite(t)
	ob := newOutbox(t, db)
	d := newDestination()
	runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d})
	ctx := events.WithMetadata(t.Context(), &events.Metadata{ID: "cause", CorrelationID: "saga", Source: "x", Type: "y"})
	if err := ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error {
		return ob.Publish(ctx, tx, outbox.With(ordered{}, bus.WithSubject("s"), bus.WithKey("other")))
	}); err != nil {
		t.Fatal(err)
	}
	got := d.await(t, 1)[0].Message
	md := events.DecodeMetadata(got.UUID, got.Metadata)
	if md.CausationID != "cause" || md.CorrelationID != "saga" || md.Subject != "s" || md.PartitionKey != "other" {
		t.Errorf("sent %+v", md)
	}
}

// On MySQL a publisher has to hold a gate before it takes an id: what is missing is told
// from what will never come by that.
func TestMySQLGateComesBeforeTheID(t *testing.T) {
	t.Parallel()
	db := newMySQL(t)
	ob := newOutbox(t, db)
	holder, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback() }()
	var gates int
	if err := holder.QueryRowContext(t.Context(), "select count(*) from (select id from tidings_gates for update) g").Scan(&gates); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		commit(t, ob, ordered{N: 1}, ordered{N: 2})
	}()
	until(t, "the publisher waits for the gate", func() bool {
		// Not innodb_trx: that is a copy, which is made anew only when nobody has asked for a
		// tenth of a second, and other tests ask as well.
		return count(t, db.DB, "select count(*) from information_schema.processlist where db = database() and command in ('Query', 'Execute') and time >= 1 and info like 'insert into%'") == 1
	})
	if _, err := holder.ExecContext(t.Context(), "insert into tidings_messages (topic, event_id, source, partition_key, metadata, payload, published_ms) values ('first', '', '', '', '{}', '', 0)"); err != nil {
		t.Fatal(err)
	}
	if err := holder.Commit(); err != nil {
		t.Fatal(err)
	}
	<-done
	if n := count(t, db.DB, "select min(id) from tidings_messages where topic = 'first'"); n != 1 {
		t.Errorf("who waited for the gate had an id already: the other one got %d", n)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if err := ob.Publish(t.Context(), tx, ordered{N: 3}); err != nil {
		t.Fatal(err)
	}
	free, all := count(t, db.DB, "select count(*) from (select id from tidings_gates for update skip locked) g"), count(t, db.DB, "select count(*) from tidings_gates")
	if free != all-1 {
		t.Errorf("%d of %d gates are free while a publisher is open", free, all)
	}
}

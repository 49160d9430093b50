package outboxtest

import (
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jmoiron/sqlx"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

var errRolledBack = errors.New("rolled back")

// twice publishes the events 1 and 2 in two transactions of a library, of which the first
// one is rolled back, and wants the second to be all that is sent.
func twice(t *testing.T, db database, inTx func(fn func(tx outbox.Tx) error) error) {
	t.Helper()
	ob := newOutbox(t, db)
	d := newDestination()
	runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d})
	for n, end := range map[int]error{1: errRolledBack, 2: nil} {
		err := inTx(func(tx outbox.Tx) error {
			if err := ob.Publish(t.Context(), tx, ordered{N: n}); err != nil {
				return err
			}
			return end
		})
		if !errors.Is(err, end) {
			t.Fatal(err)
		}
	}
	d.await(t, 1)
	commit(t, ob, ordered{N: 3}) // what was rolled back would have come before
	got := d.await(t, 2)
	if a, b := string(got[0].Message.Payload), string(got[1].Message.Payload); a != `{"n":2}` || b != `{"n":3}` {
		t.Errorf("sent %s and %s", a, b)
	}
}

func TestSqlxTransaction(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		x := sqlx.NewDb(db.DB, db.driver)
		twice(t, db, func(fn func(outbox.Tx) error) error {
			tx, err := x.BeginTxx(t.Context(), nil)
			if err != nil {
				return err
			}
			if err := fn(tx); err != nil {
				return errors.Join(err, tx.Rollback())
			}
			return tx.Commit()
		})
	})
}

// What GORM has as its pool is the transaction inside of one, and the database outside,
// which is refused. With PrepareStmt both are wrapped.
func TestGormTransaction(t *testing.T) {
	t.Parallel()
	for _, prepare := range []bool{false, true} {
		t.Run(fmt.Sprintf("PrepareStmt=%t", prepare), func(t *testing.T) {
			t.Parallel()
			db := newPostgres(t)
			g, err := gorm.Open(gormpostgres.New(gormpostgres.Config{Conn: db.DB}), &gorm.Config{Logger: logger.Discard, PrepareStmt: prepare})
			if err != nil {
				t.Fatal(err)
			}
			twice(t, db, func(fn func(outbox.Tx) error) error {
				return g.WithContext(t.Context()).Transaction(func(tx *gorm.DB) error { return fn(tx.Statement.ConnPool) })
			})
			wantRefused(t, newOutbox(t, db), db, map[string]outbox.Tx{"GORM's pool": g.Statement.ConnPool})
		})
	}
}

// What commits each statement at once is no transaction, whatever it can execute.
func TestPublishOutsideATransaction(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		none := map[string]outbox.Tx{"nil": nil, "nil *sql.Tx": (*sql.Tx)(nil), "*sql.DB": db.DB, "*sql.Conn": conn, "*sqlx.DB": sqlx.NewDb(db.DB, db.driver)}
		if db.dialect == tsql.Postgres {
			pool, err := pgxpool.New(t.Context(), db.dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			single, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer single.Release()
			none["*pgxpool.Pool"], none["*pgxpool.Conn"], none["*pgx.Conn"] = outbox.Pgx(pool), outbox.Pgx(single), outbox.Pgx(single.Conn())
			none["nil pgx.Tx"] = outbox.Pgx(pgx.Tx(nil))
			none["nil *pgxpool.Tx"] = outbox.Pgx((*pgxpool.Tx)(nil))
		}
		wantRefused(t, newOutbox(t, db), db, none)
	})
}

// wantRefused wants nothing to be written by what is no transaction.
func wantRefused(t *testing.T, ob *outbox.Outbox, db database, none map[string]outbox.Tx) {
	t.Helper()
	before := count(t, db.DB, "select count(*) from tidings_messages")
	for name, tx := range none {
		if err := ob.Publish(t.Context(), tx, ordered{N: 4}); !errors.Is(err, outbox.ErrNoTransaction) {
			t.Errorf("publish with %s: %v; want ErrNoTransaction", name, err)
		}
		out := transports.Outgoing{Topic: "t", Message: message.NewMessage("1", nil)}
		if err := ob.Transport().PublishTx(t.Context(), tx, out); !errors.Is(err, tsql.ErrNoTransaction) {
			t.Errorf("PublishTx with %s: %v; want ErrNoTransaction", name, err)
		}
		if err := ob.Transport().RequeueTx(t.Context(), tx, "s", out.Message); !errors.Is(err, tsql.ErrNoTransaction) {
			t.Errorf("RequeueTx with %s: %v; want ErrNoTransaction", name, err)
		}
	}
	if after := count(t, db.DB, "select count(*) from tidings_messages"); after != before {
		t.Errorf("%d messages are written", after-before)
	}
}

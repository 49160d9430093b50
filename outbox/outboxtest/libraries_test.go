package outboxtest

import (
	"errors"
	"testing"

	"github.com/jmoiron/sqlx"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gotidings/tidings/outbox"
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
// which is refused.
func TestGormTransaction(t *testing.T) {
	t.Parallel()
	db := newPostgres(t)
	g, err := gorm.Open(gormpostgres.New(gormpostgres.Config{Conn: db.DB}), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	twice(t, db, func(fn func(outbox.Tx) error) error {
		return g.WithContext(t.Context()).Transaction(func(tx *gorm.DB) error { return fn(tx.Statement.ConnPool) })
	})
	if err := newOutbox(t, db).Publish(t.Context(), g.Statement.ConnPool, ordered{N: 4}); !errors.Is(err, outbox.ErrNoTransaction) {
		t.Errorf("outside of a transaction: %v", err)
	}
}

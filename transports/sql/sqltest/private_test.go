package sqltest

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/internal/testsql"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// open opens a private server's database.
func open(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// A prepared transaction belongs to no session, and is open all the same.
func TestPreparedTransactions(t *testing.T) {
	t.Parallel()
	db := open(t, "pgx", testserver.StartPostgres(t).URL())
	tr := testsql.NewTransport(t, db, tsql.Config{Dialect: tsql.Postgres, PollInterval: 50 * time.Millisecond})
	ch := subscribe(t.Context(), t, tr, "s", 10, "a")
	prepare := func(name string, ids ...string) {
		t.Helper()
		tx := begin(t, db)
		publishTx(t, tr, tx, "a", ids...)
		execute(t, tx, "prepare transaction '"+name+"'")
		_ = tx.Rollback() // it has ended
	}
	prepare("commits", "1", "2")
	prepare("rolls back", "3")
	publish(t, tr, "a", "4")
	ackInOrder(t, ch, "4")
	publish(t, tr, "a", "5")
	ackInOrder(t, ch, "5")
	execute(t, db, "rollback prepared 'rolls back'")
	execute(t, db, "commit prepared 'commits'")
	ackInOrder(t, ch, "1", "2")
	wantQuiet(t, ch)
	eventually(t, db, 0, "select count(*) from tidings_gaps")
}

// The server crashes and comes back. Publishers wait for it, consumers go on, and nothing
// that was acknowledged is lost.
func TestServerCrash(t *testing.T) {
	t.Parallel()
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		server := testserver.StartPostgres(t)
		crash(t, server, open(t, "pgx", server.URL()), tsql.Postgres)
	})
	t.Run("mysql", func(t *testing.T) {
		t.Parallel()
		server := testserver.StartMySQL(t)
		crash(t, server, open(t, "mysql", "root@tcp("+server.Addr()+")/test"), tsql.MySQL)
	})
}

func crash(t *testing.T, server *testserver.Database, db *sql.DB, dialect tsql.Dialect) {
	t.Helper()
	tr := testsql.NewTransport(t, db, tsql.Config{Dialect: dialect, PollInterval: 50 * time.Millisecond, Lease: 2 * time.Second})
	ch := subscribe(t.Context(), t, tr, "s", 10, "a")
	const n = 600
	published := make(chan error, 1)
	go func() {
		for _, id := range numbers(1, n) {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			msg := newMessage(id)
			msg.SetContext(ctx)
			err := tr.Publish("a", msg)
			cancel()
			if err != nil {
				published <- fmt.Errorf("publish %s: %w", id, err)
				return
			}
		}
		published <- nil
	}()
	seen := make(map[string]bool)
	crashes := 0
	for len(seen) < n {
		msg := receive(t, ch)
		seen[msg.UUID] = true
		msg.Ack()
		if len(seen) == (crashes+1)*n/3 && crashes < 2 {
			crashes++
			server.Kill()
			server.Start()
		}
	}
	if err := <-published; err != nil {
		t.Error(err)
	}
}

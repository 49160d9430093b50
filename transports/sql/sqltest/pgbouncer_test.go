package sqltest

import (
	"testing"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/internal/testsql"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Behind PgBouncer in transaction mode a session is a transaction long. With the modes of pgx that
// keep no prepared statement in it, everything works: nothing depends on a setting of the session.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	server := testserver.StartPgBouncer(t, testsql.PostgresServer.URL())
	for _, mode := range []string{"exec", "simple_protocol", "cache_describe"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			_, cfg := testsql.Postgres(t)
			db := open(t, "pgx", withParameters(t, server.URL(), "default_query_exec_mode", mode))
			tr := testsql.NewTransport(t, db, cfg)
			other := testsql.NewTransport(t, db, cfg)
			ch := subscribe(t.Context(), t, tr, "s", 10, "a", "b.#")
			second := subscribe(t.Context(), t, other, "s", 10, "a", "b.#")
			publish(t, tr, "a", numbers(1, 200)...) // one statement with arrays and bytes
			rolledBack, late := begin(t, db), begin(t, db)
			publishTx(t, tr, rolledBack, "a", "never")
			publishTx(t, tr, late, "b.c", "201", "202")
			publish(t, tr, "b.d", numbers(203, 220)...)
			if err := rolledBack.Rollback(); err != nil {
				t.Fatal(err)
			}
			commit(t, late)
			seen := make(map[string]bool)
			for len(seen) < 220 {
				select {
				case msg := <-ch:
					seen[msg.UUID] = true
					msg.Ack()
				case msg := <-second:
					seen[msg.UUID] = true
					msg.Ack()
				case <-t.Context().Done():
					t.Fatal("the test is over")
				}
			}
			if seen["never"] {
				t.Error("what was rolled back is delivered")
			}
			if err := tr.Poison(t.Context(), "s", newMessage("p")); err != nil {
				t.Fatal(err)
			}
			if d, err := tr.Depth(t.Context(), "s"); err != nil || d.Poisoned != 1 {
				t.Errorf("depth %+v, %v; want one poisoned", d, err)
			}
			if _, err := tsql.New(t.Context(), db, cfg); err != nil { // checks what is there
				t.Error(err)
			}
		})
	}
}

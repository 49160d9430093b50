package sqltest

import (
	"testing"

	"github.com/gotidings/tidings/internal/testsql"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// A receiver that nacks everything, as when what it needs is down, does not make its consumer
// claim the whole log: it holds 1,000 messages that back off.
func TestConsumerHoldsABoundOfNackedMessages(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.SQLite(t)
	tr, err := tsql.New(t.Context(), db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	ch := subscribe(t.Context(), t, tr, "s", 1, "a")
	const most = 1000 + 1 // and the one in flight
	if err := tr.PublishBatch(t.Context(), outgoing("a", numbers(1, 3*most)...)); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for range 10*most + 3000 { // enough to reach 300 more
		msg := receive(t, ch)
		seen[msg.UUID] = true
		msg.Nack()
	}
	if len(seen) > most {
		t.Errorf("delivered %d different messages; want %d at most", len(seen), most)
	}
}

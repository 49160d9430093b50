package sqltest

import (
	"strconv"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// A backlog is handled as fast whatever PostgreSQL's planner believes of the tables. A
// plan that sorts the rest of the log for each claim, or that is compiled, takes more
// than ten times as long.
func TestPlansDoNotDependOnStatistics(t *testing.T) {
	t.Parallel()
	const n = 40_000
	took := make(map[string]time.Duration)
	for _, statistics := range []string{"none", "stale", "fresh"} {
		db, cfg := testsql.Postgres(t)
		tr := testsql.NewTransport(t, db, cfg)
		messages := backend{db, cfg}.table("messages")
		execute(t, db, "alter table "+messages+" set (autovacuum_enabled = false)")
		if statistics == "stale" { // few messages, and all of another topic
			publish(t, tr, "b", numbers(1, 10)...)
			execute(t, db, "analyze "+messages)
		}
		s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1}
		if err := tr.DeclareSubscription(t.Context(), s, tsql.FromNow); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < n; i += 1000 {
			batch := outgoing("a", numbers(i, i+999)...)
			for j := range batch {
				if j%10 == 0 {
					batch[j].Topic = "other." + strconv.Itoa(j)
				}
			}
			if err := tr.PublishBatch(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		if statistics == "fresh" {
			execute(t, db, "analyze "+messages)
		}
		began := time.Now()
		ch := subscribe(t.Context(), t, tr, "s", 100, "a")
		for range n * 9 / 10 {
			receive(t, ch).Ack()
		}
		took[statistics] = time.Since(began)
	}
	t.Logf("%v", took)
	for statistics, d := range took {
		if d > 6*took["fresh"] || d > 6*took["none"] || d > 15*time.Second {
			t.Errorf("with %s statistics it took %s: %v", statistics, d, took)
		}
	}
}

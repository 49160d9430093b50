package sqltest

import (
	"slices"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
)

// What the process itself publishes is delivered at once, without waiting for the poll of
// an idle process.
func TestIdleLatency(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			b.cfg.PollInterval = time.Second
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			ch := subscribe(t.Context(), t, tr, "s", 1, "a")
			var took []time.Duration
			for range 15 {
				<-time.After(100 * time.Millisecond) // so that it is idle
				began := time.Now()
				publish(t, tr, "a", "1")
				ackInOrder(t, ch, "1")
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			p50 := took[len(took)/2]
			t.Logf("p50 %s, longest %s", p50, took[len(took)-1])
			if p50 > 100*time.Millisecond { // some 5 ms where nothing else runs
				t.Errorf("p50 is %s", p50)
			}
		})
	}
}

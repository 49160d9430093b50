package sqltest

import (
	"fmt"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
)

// The leases of a process that died may end in another order than that of its claims: the last
// heartbeat has renewed an earlier claim and not yet known a later one. Who takes over an
// ordered subscription keeps its order.
func TestLeasesOfADeadProcessEndOutOfOrder(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			b.cfg.PollInterval = 50 * time.Millisecond
			dead := testsql.NewTransport(t, b.DB, b.cfg)
			s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 10, Ordered: true}
			ch, err := dead.Subscribe(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			publisher := testsql.NewTransport(t, b.DB, b.cfg)
			for _, id := range []string{"1", "2", "3"} { // each in a claim of its own
				publish(t, publisher, "a", id)
				receive(t, ch)
			}
			claims := b.table("claims")
			second := scalar(t, b.DB, "select first from "+claims+" order by first limit 1 offset 1")
			execute(t, b, "update "+claims+" set owner = 'dead', lease_ms = 0")
			execute(t, b, fmt.Sprintf("update %s set lease_ms = %d where first = %d", claims, time.Now().Add(3*time.Second).UnixMilli(), second))
			if err := dead.Close(); err != nil {
				t.Fatal(err)
			}
			heir, err := testsql.NewTransport(t, b.DB, b.cfg).Subscribe(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			ackInOrder(t, heir, "1", "2", "3")
		})
	}
}

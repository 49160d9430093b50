package sqltest

import (
	"database/sql/driver"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// A subscription that has nothing to do is neither asked about nor locked when something is
// published for another one. It is delivered what is for it all the same: what is published for
// a topic that another process has added, and what comes late.
func TestIdleSubscriptionsCostNothing(t *testing.T) {
	t.Parallel()
	const idle, events = 20, 30
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			var claims atomic.Int64
			tr := testsql.NewTransport(t, b.spied(t, func(query string, _ []driver.NamedValue) {
				if strings.Contains(query, "as kind") { // finds the next range, with the row of the subscription locked
					claims.Add(1)
				}
			}), b.cfg)
			busy := subscribe(t.Context(), t, tr, "busy", 1, "busy")
			publish(t, tr, "busy", "first")
			ackInOrder(t, busy, "first")
			for i := range idle {
				subscribe(t.Context(), t, tr, "idle"+strconv.Itoa(i), 1, "idle."+strconv.Itoa(i))
			}
			wide := subscribe(t.Context(), t, tr, "wide", 1, "wide.*")
			publish(t, tr, "wide.a", "w1")
			ackInOrder(t, wide, "w1")
			before := claims.Load()
			for i := range events {
				publish(t, tr, "busy", strconv.Itoa(i))
				ackInOrder(t, busy, strconv.Itoa(i))
			}
			n := claims.Load() - before
			t.Logf("%d claims for %d events beside %d idle subscriptions", n, events, idle)
			if n > events*idle/2 { // each of the idle ones had a claim for each event
				t.Errorf("%d claims for %d events beside %d idle subscriptions", n, events, idle)
			}
			other := testsql.NewTransport(t, b.DB, b.cfg)
			if err := other.DeclareSubscription(t.Context(), transports.Subscription{Name: "wide", Topics: []string{"more"}, Concurrency: 1}, tsql.FromNow); err != nil {
				t.Fatal(err)
			}
			if b.cfg.Dialect == tsql.SQLite {
				publish(t, other, "more", "w2")
				ackInOrder(t, wide, "w2")
				return
			}
			late := begin(t, b.DB)
			publishTx(t, other, late, "wide.b", "w3")
			publish(t, other, "more", "w2")
			ackInOrder(t, wide, "w2")
			commit(t, late)
			ackInOrder(t, wide, "w3")
		})
	}
}

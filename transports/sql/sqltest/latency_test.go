package sqltest

import (
	"database/sql/driver"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
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

// A backlog is taken in large claims, however long a round trip takes: how many statements a
// drain needs depends on the receiver, not on the network.
func TestClaimsGrowBehindASlowNetwork(t *testing.T) {
	t.Parallel()
	const backlog, roundTrip = 3000, 10 * time.Millisecond
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			if b.cfg.Dialect == tsql.SQLite {
				t.Skip("SQLite has no network")
			}
			host := serverHost(t, b.cfg.Dialect)
			p := newSlowProxy(t, host, roundTrip)
			var statements, claims atomic.Int64
			db := testsql.Spied(t, b.DB, strings.Replace(testsql.Servers[b.cfg.Dialect].DSN(t), host, p.addr(), 1), func(query string, _ []driver.NamedValue) {
				statements.Add(1)
				if strings.Contains(query, "claims") && strings.Contains(query, "insert into") {
					claims.Add(1)
				}
			})
			near := testsql.NewTransport(t, b.DB, b.cfg)
			s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1}
			if err := near.DeclareSubscription(t.Context(), s, tsql.FromNow); err != nil {
				t.Fatal(err)
			}
			publish(t, near, "a", numbers(1, backlog)...)
			ch := subscribe(t.Context(), t, testsql.NewTransport(t, db, b.cfg), "s", 1, "a")
			began := time.Now()
			for range backlog {
				receive(t, ch).Ack()
			}
			took := time.Since(began)
			t.Logf("%d claims, %d statements, %s: %.0f/s", claims.Load(), statements.Load(), took, backlog/took.Seconds())
			if n := claims.Load(); n > backlog/50 { // 5 or 6 where nothing else runs
				t.Errorf("%d claims for %d events; want far fewer", n, backlog)
			}
		})
	}
}

// serverHost is the host and port in the URL of a server.
func serverHost(t *testing.T, d tsql.Dialect) string {
	t.Helper()
	u, err := url.Parse(testsql.Servers[d].URL())
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

package sqltest

import (
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// maintained returns a function that waits until the log has been maintained since.
func (b backend) maintained(t *testing.T) (wait func()) {
	t.Helper()
	turn := "select turn from " + b.table("maintenance")
	before := scalar(t, b.DB, turn)
	return func() { t.Helper(); eventually(t, b.DB, before+1, turn) }
}

// held is a pool whose deletions of old messages wait until they are let go.
type held struct {
	reached chan struct{} // closed by the first
	letGo   chan struct{}
	once    sync.Once

	mu      sync.Mutex // guards deletes
	deletes int
}

func (h *held) before(query string, _ []driver.NamedValue) {
	if !strings.HasPrefix(query, "delete from ") || !strings.Contains(query, "messages") {
		return
	}
	h.mu.Lock()
	h.deletes++
	h.mu.Unlock()
	h.once.Do(func() { close(h.reached) })
	<-h.letGo
}

func (h *held) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.deletes
}

// While old messages are being deleted, however long that takes, events are delivered, leases
// are renewed, and no other process begins to delete as well.
func TestMaintenanceDelaysNothing(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			if b.cfg.Dialect == tsql.SQLite {
				t.Skip("SQLite has one writer at a time; TestPrunesInBatches has what can be had")
			}
			first := testsql.NewTransport(t, b.DB, b.cfg)
			publish(t, first, "a", numbers(1, 1200)...)
			if _, _, err := first.Log().Settled(t.Context()); err != nil { // moves the frontier
				t.Fatal(err)
			}
			execute(t, b, "update "+b.table("messages")+" set published_ms = 1")
			b.cfg.Lease, b.cfg.Retention = time.Second, time.Hour
			h := &held{reached: make(chan struct{}), letGo: make(chan struct{})}
			letGo := sync.OnceFunc(func() { close(h.letGo) })
			tr := testsql.NewTransport(t, b.spied(t, h.before), b.cfg)
			defer letGo()
			ch := subscribe(t.Context(), t, tr, "s", 1, "b")
			<-h.reached
			publish(t, first, "b", "1", "2")
			msg := receive(t, ch)
			other := &held{reached: make(chan struct{}), letGo: h.letGo}
			second := testsql.NewTransport(t, b.spied(t, other.before), b.cfg)
			again := subscribe(t.Context(), t, second, "s", 1, "b")
			<-time.After(2 * b.cfg.Lease) // the lease of the message ends, unless it is renewed
			msg.Ack()
			if msg.UUID != "1" {
				t.Errorf("received %q; want the first", msg.UUID)
			}
			select {
			case msg = <-ch:
			case msg = <-again:
			case <-time.After(deadline):
				t.Fatal("nothing arrives")
			}
			if msg.Ack(); msg.UUID != "2" {
				t.Errorf("received %q; want the second", msg.UUID)
			}
			letGo()
			eventually(t, b.DB, 0, "select count(*) from "+b.table("messages")+" where published_ms = 1")
			eventually(t, b.DB, 1, "select count(*) from "+b.table("maintenance")+" where lease_ms = 0")
			if n := h.count() + other.count(); n < 3 || n > 5 {
				t.Errorf("1,200 messages were deleted by %d statements; want 3, or 5 where a lease ended in between", n)
			}
		})
	}
}

// Two steps of the maintenance may come within a millisecond, and then renew the lease to what it
// is. MySQL does not count such a row.
func TestMaintenanceWithinAMillisecond(t *testing.T) {
	t.Parallel()
	b := backends["mysql"](t)
	now := time.Now().Unix()
	dsn := fmt.Sprintf("%s?timestamp=%d", testsql.Servers[tsql.MySQL].DSN(t), now) // the clock of its sessions stands still
	db := testsql.Spied(t, b.DB, dsn, func(string, []driver.NamedValue) {})
	tr := testsql.NewTransport(t, db, b.cfg)
	publish(t, tr, "a", "1")
	if _, _, err := tr.Log().Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	execute(t, b, "update "+b.table("messages")+" set published_ms = 1")
	b.cfg.Retention = time.Hour
	subscribe(t.Context(), t, testsql.NewTransport(t, db, b.cfg), "s", 1, "b")
	eventually(t, b.DB, 0, "select count(*) from "+b.table("messages"))
}

// One statement deletes few messages.
func TestPrunesInBatches(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			first := testsql.NewTransport(t, b.DB, b.cfg)
			publish(t, first, "a", numbers(1, 1200)...)
			if _, _, err := first.Log().Settled(t.Context()); err != nil {
				t.Fatal(err)
			}
			execute(t, b, "update "+b.table("messages")+" set published_ms = 1")
			b.cfg.Retention = time.Hour
			h := &held{reached: make(chan struct{}), letGo: make(chan struct{})}
			close(h.letGo)
			tr := testsql.NewTransport(t, b.spied(t, h.before), b.cfg)
			maintained := b.maintained(t)
			ch := subscribe(t.Context(), t, tr, "s", 1, "b")
			maintained()
			publish(t, tr, "b", "1")
			ackInOrder(t, ch, "1")
			if n := scalar(t, b.DB, "select count(*) from "+b.table("messages")); n != 1 || h.count() != 3 {
				t.Errorf("%d messages are left after %d statements; want 1 and 3", n, h.count())
			}
		})
	}
}

package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
	tsql "github.com/gotidings/tidings/transports/sql"
)

func newInbox(tb testing.TB, db database, cfg inbox.Config) *inbox.Inbox {
	tb.Helper()
	cfg.DB = db.DB
	ib, err := inbox.New(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := ib.Close(); err != nil {
			tb.Error(err)
		}
	})
	return ib
}

func handling(tb testing.TB, md events.Metadata) context.Context {
	tb.Helper()
	return events.WithMetadata(tb.Context(), &md)
}

// Mark, business data and outgoing events are one.
func TestInboxCommitsAndRollsBackTogether(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		mustExec(t, db.DB, "create table effects (n bigint not null)")
		ob, ib := newOutbox(t, db), newInbox(t, db, inbox.Config{})
		runs := 0
		var result error
		h := inbox.Handler(ib, func(ctx context.Context, tx *sql.Tx, e ordered) error {
			runs++
			if _, err := tx.ExecContext(ctx, "insert into effects values (1)"); err != nil {
				return err
			}
			if err := ob.Publish(ctx, tx, ordered{N: e.N + 1}); err != nil {
				return err
			}
			if runs == 2 {
				panic("in the handler")
			}
			return result
		})
		md := events.Metadata{ID: "1", Source: "s", Type: "order.created", Subscription: "x.a"}
		check := func(what string, wantRuns, effects int) {
			t.Helper()
			if e, m, k := count(t, db.DB, "select count(*) from effects"), count(t, db.DB, "select count(*) from tidings_messages"), count(t, db.DB, "select count(*) from tidings_inbox"); runs != wantRuns || e != effects || m != effects || k != effects {
				t.Errorf("%s: %d runs, %d effects, %d events, %d marks; want %d runs and %d", what, runs, e, m, k, wantRuns, effects)
			}
		}
		result = errRefused
		if err := h(handling(t, md), ordered{}); !errors.Is(err, errRefused) {
			t.Errorf("failing: %v", err)
		}
		check("failed", 1, 0)
		func() {
			defer func() { _ = recover() }()
			_ = h(handling(t, md), ordered{})
		}()
		check("panicked", 2, 0)
		result = nil
		for range 3 {
			if err := h(handling(t, md), ordered{}); err != nil {
				t.Error(err)
			}
		}
		check("handled", 3, 1)
		other := md
		other.Subscription = "x.b"
		replayed := md
		replayed.Extensions = map[string]string{inbox.ReplayID: "r"}
		source := md
		source.Source = "t"
		for i, md := range []events.Metadata{other, replayed, source} {
			for range 2 {
				if err := h(handling(t, md), ordered{}); err != nil {
					t.Error(err)
				}
			}
			check(fmt.Sprint("another key ", i), 4+i, 2+i)
		}
		md.ID = ""
		for range 2 {
			if err := h(handling(t, md), ordered{}); err != nil {
				t.Error(err)
			}
		}
		if runs != 8 {
			t.Errorf("events without an id ran %d times", runs-6)
		}
		if err := h(t.Context(), ordered{}); !errors.Is(err, inbox.ErrNoEvent) {
			t.Errorf("without an event: %v", err)
		}
	})
}

// Copies that are handled at the same time have one effect, also when the first fails.
func TestConcurrentCopies(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		mustExec(t, db.DB, "create table effects (id varchar(20) not null)")
		ib := newInbox(t, db, inbox.Config{})
		var mu sync.Mutex
		failed := make(map[string]bool)
		h := inbox.Handler(ib, func(ctx context.Context, tx *sql.Tx, e ordered) error {
			md, _ := events.MetadataFrom(ctx)
			if _, err := tx.ExecContext(ctx, "insert into effects values ('"+md.ID+"')"); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if !failed[md.ID] {
				failed[md.ID] = true
				return errRefused
			}
			return nil
		})
		const ids, copies = 20, 6
		var running sync.WaitGroup
		for i := range ids {
			ctx := handling(t, events.Metadata{ID: fmt.Sprint(i), Source: "s", Subscription: "x"})
			for range copies {
				running.Go(func() {
					for range 50 {
						if err := h(ctx, ordered{}); err == nil {
							return
						}
					}
					t.Errorf("%d is not handled", i)
				})
			}
		}
		running.Wait()
		if n, d := count(t, db.DB, "select count(*) from effects"), count(t, db.DB, "select count(distinct id) from effects"); n != ids || d != ids {
			t.Errorf("%d effects of %d events; want %d of %[3]d", n, d, ids)
		}
	})
}

func TestDedupStore(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ctx := t.Context()
		ib, other := newInbox(t, db, inbox.Config{Lease: time.Second}), newInbox(t, db, inbox.Config{})
		key := middleware.DedupKey{Subscription: "x\x00", Event: transports.EventKey{Source: "s", ID: "1\xff"}}
		want := func(what string, s middleware.DedupStore, state middleware.ClaimState) uint64 {
			t.Helper()
			c, err := s.Claim(ctx, key)
			if err != nil || c.State != state {
				t.Fatalf("%s: %+v, %v; want %d", what, c, err, state)
			}
			return c.Token
		}
		first := want("first", ib, middleware.Claimed)
		want("live", other, middleware.ClaimBusy)
		if err := ib.Release(ctx, key, first); err != nil {
			t.Error(err)
		}
		second := want("released", ib, middleware.Claimed)
		mustExec(t, db.DB, "update tidings_inbox set until_ms = 1")
		third := want("lapsed", other, middleware.Claimed)
		if first >= second || second >= third {
			t.Errorf("tokens %d, %d, %d do not ascend", first, second, third)
		}
		for what, err := range map[string]error{"renew": ib.Renew(ctx, key, second), "complete": ib.Complete(ctx, key, second)} {
			if !errors.Is(err, middleware.ErrClaimLost) {
				t.Errorf("%s with an old token: %v", what, err)
			}
		}
		if err := ib.Release(ctx, key, second); err != nil {
			t.Error(err)
		}
		want("released by who has lost it", ib, middleware.ClaimBusy)
		mustExec(t, db.DB, "update tidings_inbox set until_ms = 1")
		if err := other.Renew(ctx, key, third); err != nil {
			t.Error(err)
		}
		want("renewed", ib, middleware.ClaimBusy)
		if err := other.Complete(ctx, key, third); err != nil {
			t.Error(err)
		}
		want("done", ib, middleware.AlreadyDone)
		if err := other.Renew(ctx, key, third); !errors.Is(err, middleware.ErrClaimLost) {
			t.Errorf("renew what is done: %v", err)
		}
		// The clean-up lets what is alive be.
		if n, err := ib.Cleanup(ctx); n != 0 || err != nil {
			t.Errorf("cleaned %d, %v", n, err)
		}
		mustExec(t, db.DB, "update tidings_inbox set until_ms = 1")
		if n, err := ib.Cleanup(ctx); n != 1 || err != nil {
			t.Errorf("cleaned %d, %v", n, err)
		}
		if after := want("forgotten", ib, middleware.Claimed); after <= third {
			t.Errorf("the token %d after the clean-up is not above %d", after, third)
		}
	})
}

// Exactly one of many claims at the same time succeeds.
func TestConcurrentClaims(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ib := newInbox(t, db, inbox.Config{})
		var mu sync.Mutex
		claimed := make(map[int]int)
		var running sync.WaitGroup
		const keys, each = 20, 8
		for k := range keys {
			for range each {
				running.Go(func() {
					var c middleware.Claim
					var err error
					for range 20 { // a deadlock is the middleware's to try again
						if c, err = ib.Claim(t.Context(), middleware.DedupKey{Event: transports.EventKey{ID: fmt.Sprint(k)}}); err == nil {
							break
						}
					}
					if err != nil {
						t.Error(err)
					}
					if c.State == middleware.Claimed {
						mu.Lock()
						claimed[k]++
						mu.Unlock()
					}
				})
			}
		}
		running.Wait()
		for k := range keys {
			if claimed[k] != 1 {
				t.Errorf("%d was claimed %d times", k, claimed[k])
			}
		}
	})
}

func TestCleanupInBatches(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ib := newInbox(t, db, inbox.Config{Retention: time.Hour, CleanupInterval: -1})
		h := inbox.Handler(ib, func(context.Context, *sql.Tx, ordered) error { return nil })
		if db.dialect == "sqlite" {
			mustExec(t, db.DB, "pragma synchronous = off")
		}
		const n = 1201
		for i := range n {
			if err := h(handling(t, events.Metadata{ID: fmt.Sprint(i), Source: "s", Subscription: "x"}), ordered{}); err != nil {
				t.Fatal(err)
			}
		}
		if left := count(t, db.DB, "select count(*) from tidings_inbox"); left != n {
			t.Fatalf("%d marks of %d are left", left, n)
		}
		mustExec(t, db.DB, "update tidings_inbox set until_ms = 1")
		if cleaned, err := ib.Cleanup(t.Context()); cleaned != n || err != nil {
			t.Errorf("cleaned %d, %v; want %d", cleaned, err, n)
		}
		if err := h(handling(t, events.Metadata{ID: "x", Source: "s", Subscription: "x"}), ordered{}); err != nil {
			t.Fatal(err)
		}
		mustExec(t, db.DB, "update tidings_inbox set until_ms = 1")
		newInbox(t, db, inbox.Config{CleanupInterval: 10 * time.Millisecond}) // cleans by itself
		eventually(t, db.DB, 0, "select count(*) from tidings_inbox")
	})
}

func TestInboxConfig(t *testing.T) {
	t.Parallel()
	_, err := inbox.New(t.Context(), inbox.Config{Dialect: "oracle", Prefix: strings.Repeat("x", 33), Retention: -1, Lease: 1})
	for _, want := range []string{"DB is nil", "Dialect", "Prefix", "Retention", "Lease"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q in it", err, want)
		}
	}
	db := newSQLite(t)
	if _, err := inbox.New(t.Context(), inbox.Config{DB: db.DB, Schema: "x"}); err == nil || !strings.Contains(err.Error(), "Schema") {
		t.Errorf("a schema on SQLite: %v", err)
	}
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		if _, err := inbox.New(t.Context(), inbox.Config{DB: db.DB, NoMigrate: true}); err == nil || !strings.Contains(err.Error(), "MigrationSQL") {
			t.Errorf("without the table: %v", err)
		}
		statements, err := inbox.MigrationSQL(inbox.Config{Dialect: db.dialect, Prefix: "own_"})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range statements {
			mustExec(t, db.DB, s)
		}
		newInbox(t, db, inbox.Config{Prefix: "own_", NoMigrate: true})
		var starting sync.WaitGroup
		for range 8 {
			starting.Go(func() {
				if ib, err := inbox.New(t.Context(), inbox.Config{DB: db.DB}); err != nil {
					t.Errorf("several at once: %v", err)
				} else {
					_ = ib.Close()
				}
			})
		}
		starting.Wait()
	})
}

// Start refuses an inbox that forgets before the last retry, and takes its handlers.
func TestInboxOnABus(t *testing.T) {
	t.Parallel()
	db := newSQLite(t)
	tr, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tr.Close() }()
	for retention, ok := range map[time.Duration]bool{time.Minute: false, time.Hour: true} {
		ib := newInbox(t, db, inbox.Config{Retention: retention})
		b, err := bus.New(tr, bus.Config{Source: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		handled := make(chan int, 10)
		inbox.Subscribe(b, ib, "s", func(_ context.Context, _ *sql.Tx, e ordered) error {
			handled <- e.N
			return nil
		})
		err = b.Start(t.Context())
		if !ok {
			if err == nil || !strings.Contains(err.Error(), "retention") {
				t.Errorf("start with a retention of %s: %v", retention, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"1", "1", "2"} {
			if err := b.Publish(t.Context(), ordered{N: len(id)}, bus.WithID(id)); err != nil {
				t.Error(err)
			}
		}
		if err := b.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if len(handled) > 2 {
			t.Errorf("handled %d of 2 events", len(handled))
		}
	}
}

// A bus on the inbox's own database publishes in the handler's transaction, and so does not
// wait for a connection that the handler has, or for the one writer of SQLite.
func TestBusInAHandlerOnTheSameDatabase(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		db.SetMaxOpenConns(1)
		ib := newInbox(t, db, inbox.Config{})
		pools := map[string]*sql.DB{"the same pool": db.DB}
		if db.dialect == tsql.SQLite {
			pools["another pool"] = openDB(t, db.driver, db.dsn)
		}
		for name, pool := range pools {
			tr, err := tsql.New(t.Context(), pool, tsql.Config{PollInterval: 10 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			b, err := bus.New(tr, bus.Config{Source: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			subscription := strings.ReplaceAll(name, " ", "-")
			failed := make(map[int]bool)
			var mu sync.Mutex
			inbox.Subscribe(b, ib, subscription, func(ctx context.Context, _ *sql.Tx, e ordered) error {
				if err := b.Publish(ctx, followed{N: e.N}); err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				if !failed[e.N] {
					failed[e.N] = true
					return errRefused // and what it has published is rolled back
				}
				return nil
			}, bus.Concurrency(4))
			arrived := make(chan int, 100)
			bus.Subscribe(b, subscription+"-followed", func(_ context.Context, e followedEvent) error {
				arrived <- e.N
				return nil
			})
			if err := b.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			const n = 8
			for i := range n {
				if err := b.Publish(t.Context(), ordered{N: i}); err != nil {
					t.Fatal(err)
				}
			}
			seen := make(map[int]bool)
			for len(seen) < n {
				select {
				case i := <-arrived:
					if seen[i] {
						t.Errorf("%s: %d is published twice", name, i)
					}
					seen[i] = true
				case <-time.After(deadline):
					t.Fatalf("%s: %d of %d events follow", name, len(seen), n)
				}
			}
			if err := errors.Join(b.Shutdown(context.Background()), tr.Close()); err != nil {
				t.Error(err)
			}
		}
	})
}

// followed is published by a handler, and followedEvent is what is read of it.
type (
	followed      struct{ N int }
	followedEvent struct{ N int }
)

func (followed) EventType() string      { return "order.followed" }
func (followedEvent) EventType() string { return "order.followed" }

// A claim may be renewed twice within a millisecond. MySQL does not count a row that a
// statement leaves as it is.
func TestRenewedWithinAMillisecond(t *testing.T) {
	t.Parallel()
	db := newMySQL(t)
	db.DB = openDB(t, "mysql", fmt.Sprintf("%s?timestamp=%d", db.dsn, time.Now().Unix())) // the clock of its sessions stands still
	ib := newInbox(t, db, inbox.Config{})
	key := middleware.DedupKey{Subscription: "s", Event: transports.EventKey{Source: "s", ID: "1"}}
	c, err := ib.Claim(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := ib.Renew(t.Context(), key, c.Token); err != nil {
			t.Error(err)
		}
	}
}

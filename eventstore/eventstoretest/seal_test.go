package eventstoretest

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/eventstore"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// sealed runs a test on every database.
func sealed(t *testing.T, cfg eventstore.Config, fn func(t *testing.T, w *world)) {
	t.Helper()
	cfg.Seal = true
	cfg.FollowInterval = -1
	for name, open := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, newWorld(t, open, cfg))
		})
	}
}

func (w *world) verify(t *testing.T, o eventstore.VerifyOptions) eventstore.Report {
	t.Helper()
	r, err := w.store.Verify(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// publishN publishes events 1 to n of seals with a few each.
func (w *world) publishN(t *testing.T, n int) {
	t.Helper()
	for i := 1; i <= n; i++ {
		w.publish(t, event("a", fmt.Sprint("e", i)))
		if i%3 == 0 {
			if err := w.store.CatchUp(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What was done to the database is found, and named.
func TestTampering(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		statements []string
		want       []string // kind, event or place, seal
	}{
		"nothing":            {nil, nil},
		"payload":            {[]string{`update {messages} set payload = metadata where id = 4`}, []string{"changed 4 e4 2"}},
		"metadata":           {[]string{`update {messages} set metadata = '{}' where id = 5`}, []string{"changed 5 e5 2"}},
		"unreadable":         {[]string{`update {messages} set metadata = 'x' where id = 5`}, []string{"changed 5 e5 2"}},
		"topic":              {[]string{`update {messages} set topic = 'b' where id = 1`}, []string{"changed 1 e1 1"}},
		"id":                 {[]string{`update {messages} set event_id = 'e0' where id = 1`}, []string{"changed 1 e0 1"}},
		"source":             {[]string{`update {messages} set source = 'x' where id = 9`}, []string{"changed 9 e9 3"}},
		"key":                {[]string{`update {messages} set partition_key = 'x' where id = 9`}, []string{"changed 9 e9 3"}},
		"time":               {[]string{`update {messages} set published_ms = published_ms + 1 where id = 9`}, []string{"changed 9 e9 3"}},
		"removed":            {[]string{`delete from {messages} where id = 2`}, []string{"removed 2  1"}},
		"removed at the end": {[]string{`delete from {messages} where id = 10`}, []string{"removed 10  4"}},
		"removed first":      {[]string{`delete from {messages} where id <= 2`}, []string{"removed 1  1", "removed 2  1"}},
		"swapped": {
			[]string{`update {messages} set event_id = 'x' where id = 2`, `update {messages} set event_id = 'e2' where id = 3`, `update {messages} set event_id = 'e3' where id = 2`},
			[]string{"changed 2 e3 1", "changed 3 e2 1"},
		},
		"two": {[]string{`delete from {messages} where id = 2`, `update {messages} set topic = 'b' where id = 8`}, []string{"removed 2  1", "changed 8 e8 3"}},
		"seal's entries": {
			[]string{`update {seals} set entries = digest where n = 2`},
			[]string{"seal broken   2"},
		},
		"seal's digest":      {[]string{`update {seals} set digest = entries_digest where n = 2`}, []string{"seal broken   2", "seal broken   3"}},
		"seal's range":       {[]string{`update {seals} set events = 4 where n = 4`}, []string{"seal broken   4", "seal broken   4"}},
		"entries dropped":    {[]string{""}, []string{"seal broken   1"}},
		"seal removed":       {[]string{`delete from {seals} where n = 2`}, []string{"seal gone   2", "inserted 4 e4 0", "inserted 5 e5 0", "inserted 6 e6 0"}},
		"first seal removed": {[]string{`delete from {seals} where n = 1`}, []string{"seal gone   1", "inserted 1 e1 0", "inserted 2 e2 0", "inserted 3 e3 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed(t, eventstore.Config{}, func(t *testing.T, w *world) {
				t.Helper()
				w.publishN(t, 10)
				if r := w.verify(t, eventstore.VerifyOptions{}); r.Damaged != 0 || r.Events != 10 || r.Seals != 4 {
					t.Fatalf("before: %+v", r)
				}
				for _, s := range tt.statements {
					if s == "" {
						execute(t, w, `update {seals} set entries = ? where n = 1`, []byte{})
						continue
					}
					if name == "payload" && w.cfg.Dialect == tsql.Postgres {
						s = `update {messages} set payload = 'x'::bytea where id = 4`
					}
					execute(t, w, s)
				}
				r := w.verify(t, eventstore.VerifyOptions{})
				var got []string
				for _, f := range r.Faults {
					got = append(got, fmt.Sprint(f.Kind, " ", f.Cursor, " ", f.ID, " ", f.Seal))
					if f.Detail == "" || f.String() == "" {
						t.Errorf("%+v says nothing", f)
					}
				}
				slices.Sort(got)
				want := slices.Sorted(slices.Values(tt.want))
				if !slices.Equal(got, want) || int(r.Damaged) != len(want) {
					t.Errorf("found %q; want %q", got, want)
				}
			})
		})
	}
}

// A row at a place that was passed while nothing was there is found; one at the end is an event.
func TestInsertedRow(t *testing.T) {
	t.Parallel()
	sealed(t, eventstore.Config{}, func(t *testing.T, w *world) {
		t.Helper()
		w.publishN(t, 3)
		tx, err := w.db.BeginTx(t.Context(), nil) // leaves a hole
		if err != nil {
			t.Fatal(err)
		}
		if err := w.log.PublishTx(t.Context(), tx, event("a", "never")); err != nil {
			t.Fatal(err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if w.cfg.Dialect == tsql.SQLite { // takes the id again
			execute(t, w, `update sqlite_sequence set seq = 4 where name = 'tidings_messages'`)
		}
		w.publishN(t, 3)
		// The hole is one for good when nobody is open any more who may fill it. On PostgreSQL
		// that is everybody on the server, the tests of other packages too.
		again := time.NewTicker(5 * time.Millisecond)
		defer again.Stop()
		for end := time.Now().Add(deadline); ; <-again.C {
			if r := w.verify(t, eventstore.VerifyOptions{}); r.Damaged != 0 || r.Events != 6 {
				t.Fatalf("before: %+v", r)
			}
			settled, frontier, err := w.log.Log().Settled(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if settled == frontier {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the hole is open after %s: settled %d of %d", deadline, settled, frontier)
			}
		}
		override := ""
		if w.cfg.Dialect == tsql.Postgres {
			override = " overriding system value"
		}
		execute(t, w, `insert into {messages} (id, topic, event_id, source, partition_key, metadata, payload, published_ms)`+override+
			` select 4, topic, 'forged', source, partition_key, metadata, payload, published_ms from {messages} where id = 3`)
		r := w.verify(t, eventstore.VerifyOptions{})
		if len(r.Faults) != 1 || r.Faults[0].Kind != eventstore.Inserted || r.Faults[0].Cursor != "4" || r.Faults[0].ID != "forged" {
			t.Errorf("found %+v", r.Faults)
		}
		if again := w.verify(t, eventstore.VerifyOptions{}); len(again.Faults) != 1 {
			t.Errorf("found %+v the second time", again.Faults)
		}
	})
}

// Who makes the chain anew, or cuts it off, is found by the head that was kept, or lacks the key.
func TestChainMadeAnew(t *testing.T) {
	t.Parallel()
	for name, key := range map[string][]byte{"no key": nil, "key": bytes.Repeat([]byte("k"), 16)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed(t, eventstore.Config{SealKey: key}, func(t *testing.T, w *world) {
				t.Helper()
				w.publishN(t, 9)
				head := w.verify(t, eventstore.VerifyOptions{}).Head
				if head.Seal != 3 || len(head.Digest) != 32 {
					t.Fatalf("head %+v", head)
				}
				w.publishN(t, 3)
				if r := w.verify(t, eventstore.VerifyOptions{Head: head}); r.Damaged != 0 || r.Head.Seal != 4 {
					t.Fatalf("with a head that is true: %+v", r)
				}
				execute(t, w, `update {messages} set topic = 'b' where id = 2`)
				execute(t, w, `delete from {seals}`)
				execute(t, w, `update {subscriptions} set position = 0 where name = 'tidings.eventstore.seal'`)
				forger := newStore(t, eventstore.Config{Log: w.log, Seal: true, FollowInterval: -1})
				if r, err := forger.Verify(t.Context(), eventstore.VerifyOptions{}); err != nil || r.Damaged != 0 {
					t.Fatalf("the forger's chain: %+v, %v", r, err)
				}
				if r := w.verify(t, eventstore.VerifyOptions{}); (r.Damaged > 0) != (key != nil) {
					t.Errorf("without a head: %+v", r)
				}
				if r := w.verify(t, eventstore.VerifyOptions{Head: head}); r.Damaged == 0 {
					t.Error("the head that was kept does not show")
				}
			})
		})
	}
}

// Seals of many writers at once, whose events are committed in any order, are true, and so
// are those of several sealers.
func TestSealsOfManyWriters(t *testing.T) {
	t.Parallel()
	sealed(t, eventstore.Config{Index: true}, func(t *testing.T, w *world) {
		t.Helper()
		const writers, each = 6, 30
		var writing, sealing sync.WaitGroup
		done := make(chan struct{})
		for range 2 {
			other := newStore(t, eventstore.Config{Log: w.log, Seal: true, Index: true, FollowInterval: -1})
			sealing.Go(func() {
				for {
					if err := other.CatchUp(t.Context()); err != nil {
						t.Error(err)
						return
					}
					select {
					case <-done:
						return
					default:
					}
				}
			})
		}
		for i := range writers {
			writing.Go(func() {
				for j := range each {
					tx, err := w.db.BeginTx(t.Context(), nil)
					if err != nil {
						t.Error(err)
						return
					}
					if err := w.log.PublishTx(t.Context(), tx, event("a", fmt.Sprint(i, "-", j), "subject", "s")); err != nil {
						t.Error(err)
					}
					end := tx.Commit
					if j%5 == 4 {
						end = tx.Rollback
					}
					if err := end(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		writing.Wait()
		close(done)
		sealing.Wait()
		const want = writers * each * 4 / 5
		r := w.verify(t, eventstore.VerifyOptions{})
		if r.Damaged != 0 || r.Events != want {
			t.Errorf("%+v; want %d events and no fault", r, want)
		}
		n := 0
		for _, err := range w.store.All(t.Context(), eventstore.Query{Subject: "s"}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != want {
			t.Errorf("the index has %d events; want %d", n, want)
		}
	})
}

// An event whose transaction took long is sealed when it comes, and changed ones of them are found.
func TestLateEventsAreSealed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"postgres", "mariadb"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, databases[name], eventstore.Config{Seal: true, Index: true, FollowInterval: -1})
			w.publishN(t, 3)
			tx, err := w.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.log.PublishTx(t.Context(), tx, event("a", "late", "subject", "late")); err != nil {
				t.Fatal(err)
			}
			w.publishN(t, 3)
			if r := w.verify(t, eventstore.VerifyOptions{}); r.Damaged != 0 || r.Events != 6 {
				t.Errorf("while it is open: %+v", r)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if r := w.verify(t, eventstore.VerifyOptions{}); r.Damaged != 0 || r.Events != 7 {
				t.Errorf("after it has come: %+v", r)
			}
			page, err := w.store.List(t.Context(), eventstore.Listing{Query: eventstore.Query{Subject: "late"}})
			if err != nil || len(page.Events) != 1 || page.Events[0].Cursor != "4" {
				t.Errorf("the index has %+v, %v", page, err)
			}
			execute(t, w, `update {messages} set topic = 'b' where id = 4`)
			if r := w.verify(t, eventstore.VerifyOptions{}); len(r.Faults) != 1 || r.Faults[0].Kind != eventstore.Changed || r.Faults[0].Cursor != "4" {
				t.Errorf("found %+v", r.Faults)
			}
		})
	}
}

// Retention deletes only what is sealed, and what it has deleted is no fault.
func TestRetentionIsNoFault(t *testing.T) {
	t.Parallel()
	for name, open := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keep := 400 * time.Millisecond
			w := newWorld(t, func(tb testing.TB) (pool *sql.DB, cfg tsql.Config) {
				tb.Helper()
				pool, cfg = open(tb)
				cfg.Retention = keep
				return pool, cfg
			}, eventstore.Config{Seal: true, Index: true, FollowInterval: -1})
			w.publishN(t, 6)
			head := w.verify(t, eventstore.VerifyOptions{}).Head
			time.Sleep(keep + 100*time.Millisecond)
			w.publishN(t, 3)
			execute(t, w, `delete from {messages} where id <= 6`) // as the maintenance does, once a minute
			for i := range 2 {
				r := w.verify(t, eventstore.VerifyOptions{Head: head})
				if r.Damaged != 0 || r.Events != 3 || r.Pruned != 6 {
					t.Errorf("round %d: %+v", i, r)
				}
				if err := w.store.Prune(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			var left, bytes int
			row := w.db.QueryRowContext(t.Context(), w.log.Log().Write(`select (select count(*) from {event_index}), (select count(*) from {seals} where octet_length(entries) > 0)`))
			if err := row.Scan(&left, &bytes); err != nil || left != 3 || bytes != 1 {
				t.Errorf("%d rows of the index, %d seals with entries, %v; want 3 and 1", left, bytes, err)
			}
			execute(t, w, `delete from {messages} where id = 8`)
			if r := w.verify(t, eventstore.VerifyOptions{}); len(r.Faults) != 1 || r.Faults[0].Kind != eventstore.Removed {
				t.Errorf("found %+v", r.Faults)
			}
		})
	}
}

func TestVerifyNeedsSeals(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(t *testing.T, w *world) {
		t.Helper()
		if _, err := w.store.Verify(t.Context(), eventstore.VerifyOptions{}); !errors.Is(err, eventstore.ErrNotSealed) {
			t.Errorf("error %v; want ErrNotSealed", err)
		}
	})
}

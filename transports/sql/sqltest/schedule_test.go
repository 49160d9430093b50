package sqltest

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// A takes its transaction id first. G takes a later one, inserts, and stays open. A inserts
// behind it and commits. With the latest completed transaction id as the bound of the gap,
// G's row would be given up: that is A's, and G's is not below the next. Any other
// transaction that ends meanwhile would hide it, so nothing runs beside this test, and the
// transport has no poller.
//
//nolint:paralleltest // see above
func TestWriterWithNewerIDAndLowerRow(t *testing.T) {
	db, cfg := testsql.Postgres(t)
	tr := testsql.NewTransport(t, db, cfg)
	declare := func(name string) { // passes gaps at once
		t.Helper()
		s := transports.Subscription{Name: name, Topics: []string{"a"}, Concurrency: 1}
		if err := tr.DeclareSubscription(t.Context(), s, tsql.FromNow); err != nil {
			t.Fatal(err)
		}
	}
	declare("s")
	var want []string
	for i := range 10 {
		n := strconv.Itoa(i)
		a, g := begin(t, db), begin(t, db)
		execute(t, a, "select pg_current_xact_id()")
		publishTx(t, tr, g, "a", "g"+n)
		publishTx(t, tr, a, "a", "a"+n)
		commit(t, a)
		declare("passes" + n)
		declare("looks at the gap" + n)
		// As if s had taken all up to the frontier.
		execute(t, db, `update "`+cfg.Schema+`".tidings_subscriptions set position = (select frontier from "`+cfg.Schema+`".tidings_log) where name = 's'`)
		commit(t, g)
		want = append(want, "g"+n)
	}
	ch := subscribe(t.Context(), t, tr, "s", 10, "a")
	ackAll(t, ch, want...)
	wantQuiet(t, ch)
}

// An insert of several rows takes their numbers and then waits, here for the holder of a
// unique key, while others go past it.
func TestBatchThatWaitsWithReservedIDs(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			if b.cfg.Dialect == tsql.SQLite {
				t.Skip("SQLite has one writer at a time")
			}
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			ch := subscribe(t.Context(), t, tr, "s", 10, "a")
			execute(t, b, "create unique index tt_event on "+b.table("messages")+" ("+eventIDColumn(b)+")")
			holder, waiting := begin(t, b.DB), begin(t, b.DB)
			publishTx(t, tr, holder, "a", "0x") // below all others, since InnoDB locks the gap before it
			done := make(chan error, 1)
			go func() { done <- tr.PublishTx(t.Context(), waiting, outgoing("a", "y", "0x", "z")...) }()
			// It has its numbers as soon as it waits for the lock.
			eventually(t, b.DB, 1, waiters(b))
			publish(t, tr, "a", "1")
			ackInOrder(t, ch, "1")
			publish(t, tr, "a", "2")
			ackInOrder(t, ch, "2")
			if err := holder.Rollback(); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			publish(t, tr, "a", "3")
			ackInOrder(t, ch, "3")
			commit(t, waiting)
			ackAll(t, ch, "0x", "y", "z")
			wantQuiet(t, ch)
		})
	}
}

func eventIDColumn(b backend) string {
	if b.cfg.Dialect == tsql.MySQL {
		return "event_id(100)"
	}
	return "event_id"
}

// waiters counts the sessions that wait for a lock on our tables.
func waiters(b backend) string {
	if b.cfg.Dialect == tsql.MySQL {
		// Not innodb_trx: that is a copy, which is made anew only when nobody has asked for a
		// tenth of a second, and other tests ask as well.
		return `select count(*) from information_schema.processlist where command in ('Query', 'Execute') and time >= 1 and info like 'insert into%` + b.cfg.Prefix + `messages%'`
	}
	return `select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%` + b.cfg.Schema + `%' and pid <> pg_backend_pid()`
}

// Several claimers wait for one position; the one that has waited must go on behind what
// the other has taken, although its snapshot may be older.
func TestTwoClaimersAtOnePosition(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			publisher := testsql.NewTransport(t, b.DB, b.cfg)
			if err := publisher.DeclareSubscription(t.Context(), transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1}, tsql.FromNow); err != nil {
				t.Fatal(err)
			}
			ids := numbers(1, 2000)
			publish(t, publisher, "a", ids...)
			received := make(chan string, 2*len(ids))
			for range 4 {
				ch := subscribe(t.Context(), t, testsql.NewTransport(t, b.DB, b.cfg), "s", 10, "a")
				go func() {
					for msg := range ch {
						received <- msg.UUID
						msg.Ack()
					}
				}()
			}
			var got []string
			for range ids {
				select {
				case id := <-received:
					got = append(got, id)
				case <-time.After(deadline):
					t.Fatalf("%d of %d have arrived", len(got), len(ids))
				}
			}
			slices.Sort(got)
			if slices.Sort(ids); !slices.Equal(got, ids) {
				t.Error("not each has arrived once")
			}
			select {
			case id := <-received:
				t.Errorf("%s has arrived twice", id)
			case <-time.After(quiet):
			}
		})
	}
}

// A publish of 300,000 rows that is rolled back is one gap, and goes away.
func TestRolledBackPublishOf300000(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			if b.cfg.Dialect == tsql.SQLite {
				t.Skip("SQLite has one writer at a time, and no gaps")
			}
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			ch := subscribe(t.Context(), t, tr, "s", 10, "a")
			tx := begin(t, b.DB)
			const each = 5000
			batch := outgoing("a", numbers(1, each)...)
			for range 300_000 / each {
				if err := tr.PublishTx(t.Context(), tx, batch...); err != nil {
					t.Fatal(err)
				}
			}
			publish(t, tr, "a", "during")
			ackInOrder(t, ch, "during")
			if n := scalar(t, b.DB, "select count(*) from "+b.table("gaps")); n != 1 {
				t.Errorf("%d gaps; want 1", n)
			}
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			publish(t, tr, "a", "after")
			ackInOrder(t, ch, "after")
			if b.cfg.Dialect == tsql.MySQL { // where other transactions do not matter
				eventually(t, b.DB, 0, "select count(*) from "+b.table("gaps"))
			}
			wantQuiet(t, ch)
		})
	}
}

// A subscription finds the few messages that are for it, and its position follows the
// frontier.
func TestOneTopicInAThousand(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			ch := subscribe(t.Context(), t, tr, "rare", 10, "topic.7")
			words := subscribe(t.Context(), t, tr, "rare words", 10, "*.7")
			wantQuiet(t, subscribe(t.Context(), t, tr, "none at all", 10, "nothing"))
			var batch []transports.Outgoing
			for i := range 5000 {
				batch = append(batch, outgoing("topic."+strconv.Itoa(i%1000), strconv.Itoa(i))...)
			}
			if err := tr.PublishBatch(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			ackInOrder(t, ch, "7")
			ackAll(t, ch, "1007", "2007", "3007", "4007")
			ackAll(t, words, "7", "1007", "2007", "3007", "4007")
			eventually(t, b.DB, 0, "select count(*) from "+b.table("subscriptions")+" where position < 4900")
			eventually(t, b.DB, 0, "select count(*) from "+b.table("claims"))
		})
	}
}

// What is committed after Subscribe arrives, also if it was written before; what was
// committed before does not.
func TestSubscriptionCreatedWhilePublishersAreOpen(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			if b.cfg.Dialect == tsql.SQLite {
				t.Skip("SQLite has one writer at a time")
			}
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			one, two, three := begin(t, b.DB), begin(t, b.DB), begin(t, b.DB)
			publishTx(t, tr, one, "a", "late 1")
			publishTx(t, tr, two, "a", "early 2")
			publish(t, tr, "a", "early 3")
			publishTx(t, tr, three, "a", "late 4")
			commit(t, two)
			ch := subscribe(t.Context(), t, tr, "s", 10, "a")
			publish(t, tr, "a", "5")
			commit(t, one)
			commit(t, three)
			ackAll(t, ch, "late 1", "late 4", "5")
			wantQuiet(t, ch)
			// So it is with a topic that is added.
			four := begin(t, b.DB)
			publish(t, tr, "b", "early 6")
			publishTx(t, tr, four, "b", "late 7")
			more := subscribe(t.Context(), t, tr, "s", 10, "b")
			publish(t, tr, "b", "8")
			commit(t, four)
			got := map[string]bool{}
			for range 2 {
				select {
				case msg := <-ch:
					got[msg.UUID] = msg.Ack()
				case msg := <-more:
					got[msg.UUID] = msg.Ack()
				case <-time.After(deadline):
					t.Fatalf("only %v has arrived", got)
				}
			}
			if !got["late 7"] || !got["8"] {
				t.Errorf("received %v", got)
			}
			wantQuiet(t, ch)
			wantQuiet(t, more)
		})
	}
}

// What a claim holds is not deleted however old it is, and everything else is.
func TestRetentionUnderLiveClaims(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			b.cfg.Lease = time.Second
			publisher := testsql.NewTransport(t, b.DB, b.cfg)
			ch := subscribe(t.Context(), t, publisher, "s", 3, "a")
			other := subscribe(t.Context(), t, publisher, "other", 1, "b")
			publish(t, publisher, "a", numbers(1, 6)...)
			publish(t, publisher, "b", numbers(7, 8)...)
			idle := transports.Subscription{Name: "idle", Topics: []string{"d"}, Concurrency: 1}
			if err := publisher.DeclareSubscription(t.Context(), idle, tsql.FromNow); err != nil {
				t.Fatal(err)
			}
			publish(t, publisher, "d", "waits")
			ackInOrder(t, other, "7", "8")
			held := []*message.Message{receive(t, ch), receive(t, ch), receive(t, ch)}
			held[0].Ack()
			fourth := receive(t, ch)
			execute(t, b, "update "+b.table("messages")+" set published_ms = 1")
			b.cfg.Retention = time.Hour
			maintained := b.maintained(t)
			pruner := testsql.NewTransport(t, b.DB, b.cfg)
			third := subscribe(t.Context(), t, pruner, "third", 1, "c")
			publish(t, pruner, "c", "9")
			ackInOrder(t, third, "9")
			maintained()
			if n := scalar(t, b.DB, "select count(*) from "+b.table("messages")+" where event_id in ('2', '3', '4', '5', '6', 'waits')"); n != 6 {
				t.Errorf("%d of the 6 that are still needed are there", n)
			}
			held[1].Ack()
			held[2].Ack()
			fourth.Ack()
			ackInOrder(t, ch, "5", "6")
			eventually(t, b.DB, 0, "select count(*) from "+b.table("claims"))
			maintained = b.maintained(t)
			again := subscribe(t.Context(), t, testsql.NewTransport(t, b.DB, b.cfg), "fourth", 1, "c")
			publish(t, pruner, "c", "10")
			ackInOrder(t, again, "10")
			maintained()
			if n := scalar(t, b.DB, "select count(*) from "+b.table("messages")+" where event_id in ('waits', '9', '10')"); n != 3 {
				t.Errorf("%d of the 3 that are needed, or young, are there", n)
			}
			eventually(t, b.DB, 0, "select count(*) from "+b.table("messages")+" where event_id in ('1', '2', '3', '4', '5', '6')")
		})
	}
}

// A consumer that vanishes has what it had settled recorded, in the middle of its claim
// too, and another repeats only the rest.
func TestTakeOverRepeatsNothingSettled(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			b.cfg.Lease = time.Second
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			if err := tr.DeclareSubscription(t.Context(), transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1}, tsql.FromNow); err != nil {
				t.Fatal(err)
			}
			publish(t, tr, "a", numbers(1, 10)...)
			dying := testsql.NewTransport(t, b.DB, b.cfg)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ch := subscribe(ctx, t, dying, "s", 10, "a")
			held := make(map[string]*message.Message)
			for range 10 {
				msg := receive(t, ch)
				held[msg.UUID] = msg
			}
			for _, id := range []string{"1", "2", "5", "6", "9"} {
				held[id].Ack()
			}
			eventually(t, b.DB, 1, "select count(*) from "+b.table("claims")+" where first = 2 and length(settled) = 3")
			// Its owner is another now, as if the process had died and its lease had ended:
			// what it does from now on has no effect.
			stop()
			execute(t, b, "update "+b.table("claims")+" set owner = 'dead', lease_ms = 0")
			held["3"].Ack()
			again := subscribe(t.Context(), t, testsql.NewTransport(t, b.DB, b.cfg), "s", 10, "a")
			ackAll(t, again, "3", "4", "7", "8", "10")
			wantQuiet(t, again)
			eventually(t, b.DB, 0, "select count(*) from "+b.table("claims"))
		})
	}
}

// A slow consumer gives back what it has claimed ahead.
func TestSlowConsumerHoardsNothing(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			fast := testsql.NewTransport(t, b.DB, b.cfg)
			ch := subscribe(t.Context(), t, fast, "s", 10, "a")
			const n = 3000
			for i := 0; i < n; i += 500 {
				publish(t, fast, "a", numbers(i, i+499)...)
			}
			var seen int
			for range n / 2 { // as fast as it can, so that much is claimed ahead
				receive(t, ch).Ack()
				seen++
			}
			// It stops. What it holds unsettled are those in flight; the rest is for others.
			other := subscribe(t.Context(), t, testsql.NewTransport(t, b.DB, b.cfg), "s", 10, "a")
			for seen < n-10 {
				receive(t, other).Ack()
				seen++
			}
			wantQuiet(t, other)
		})
	}
}

// A message whose handler takes several times the lease stays with its consumer.
func TestLongHandlerKeepsItsLease(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			b.cfg.Lease = time.Second
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ch := subscribe(ctx, t, tr, "s", 2, "a")
			publish(t, tr, "a", "1", "2")
			first, second := receive(t, ch), receive(t, ch)
			if err := tr.Requeue(t.Context(), "s", second, 0); err != nil {
				t.Fatal(err)
			}
			second.Ack()
			again := receive(t, ch) // an exception, which has a lease of its own
			other := subscribe(t.Context(), t, testsql.NewTransport(t, b.DB, b.cfg), "s", 2, "a")
			select {
			case msg := <-other:
				t.Fatalf("%s is handled twice", msg.UUID)
			case <-time.After(3 * b.cfg.Lease):
			}
			first.Ack()
			again.Ack()
			stop()
			for range ch {
				t.Error("something more has come")
			}
			wantQuiet(t, other)
		})
	}
}

package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
)

func numbered(from, n int, key string) []any {
	var batch []any
	for i := range n {
		batch = append(batch, outbox.With(ordered{N: from + i, Key: key}, bus.WithID(fmt.Sprint(key, from+i))))
	}
	return batch
}

// A destination that is down writes nothing, counts nothing, and holds up no other one.
func TestDestinationDownPausesItsRelayOnly(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ob := newOutbox(t, db)
		down, up := newDestination(), newDestination()
		down.setDown(true)
		runRelay(t, ob, outbox.RelayConfig{Name: "down", To: down, Attempts: 1})
		runRelay(t, ob, outbox.RelayConfig{Name: "up", To: up, Attempts: 1})
		const n = 50
		commit(t, ob, numbered(0, n, "k")...)
		up.await(t, n)
		until(t, "the other relay tries", func() bool { return down.attempts() > 0 })
		if n := count(t, db.DB, "select count(*) from tidings_deliveries"); n != 0 {
			t.Errorf("%d deliveries are written for a destination that is down", n)
		}
		stats, err := ob.Stats(t.Context())
		if err != nil || len(stats) != 2 || stats[0].Name != "down" || stats[0].Waiting != n || stats[0].Parked != 0 {
			t.Errorf("stats %+v, %v", stats, err)
		}
		until(t, "the age grows", func() bool {
			stats, err := ob.Stats(t.Context())
			return err == nil && stats[0].Age > 0 && stats[1].Age == 0
		})
		down.setDown(false)
		down.await(t, n)
		eventually(t, db.DB, 0, "select count(*) from tidings_claims")
		if ids := down.ids(); !slices.Equal(ids, up.ids()) {
			t.Errorf("sent %v", ids)
		}
	})
}

// A transport that says nothing but that a batch has failed is down: its events are not
// counted either.
func TestErrorOfAWholeBatchIsNotCounted(t *testing.T) {
	t.Parallel()
	db := newSQLite(t)
	ob := newOutbox(t, db)
	d := &plainDestination{fail: 12}
	runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d, Attempts: 1, MinDelay: time.Millisecond, MaxDelay: time.Millisecond})
	commit(t, ob, numbered(0, 5, "k")...)
	until(t, "all are sent", func() bool { return d.count() == 5 })
	if n := count(t, db.DB, "select count(*) from tidings_deliveries"); n != 0 {
		t.Errorf("%d are parked", n)
	}
}

// A bad event among good ones is found also where the transport can't name it.
func TestBadEventIsFoundWithoutAPublishError(t *testing.T) {
	t.Parallel()
	db := newSQLite(t)
	ob := newOutbox(t, db)
	d := &plainDestination{bad: "k2"}
	relay, _ := runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d, Attempts: 2, MinDelay: time.Millisecond, MaxDelay: time.Millisecond})
	commit(t, ob, numbered(0, 5, "k")...)
	until(t, "the others are sent", func() bool { return d.count() == 4 })
	eventually(t, db.DB, 1, "select count(*) from tidings_deliveries where state = 1")
	if ids := strings.Join(d.ids(), " "); ids != "k0 k1 k3 k4" {
		t.Errorf("sent %s", ids)
	}
	for p, err := range relay.Parked(t.Context()) {
		if err != nil || p.Key().ID != "k2" {
			t.Errorf("parked %+v, %v", p, err)
		}
	}
}

// While events are sent one by one, none overtakes one of its key.
func TestSingleEventsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	db := newSQLite(t)
	ob := newOutbox(t, db)
	d := &plainDestination{bad: "k2", badFor: 5}
	runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d, Attempts: 100, MinDelay: time.Millisecond, MaxDelay: time.Millisecond})
	commit(t, ob, numbered(0, 5, "k")...)
	until(t, "all are sent", func() bool { return d.count() == 5 })
	if ids := strings.Join(d.ids(), " "); ids != "k0 k1 k2 k3 k4" {
		t.Errorf("sent %s", ids)
	}
}

// One event that the destination refuses is tried, parked, and comes back by redrive.
func TestRefusedEventIsParkedAndRedriven(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ob := newOutbox(t, db)
		d := newDestination()
		d.refuse("k2", errRefused)
		relay, _ := runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d, Attempts: 3, MinDelay: time.Millisecond, MaxDelay: time.Millisecond})
		commit(t, ob, numbered(0, 5, "k")...)
		d.await(t, 4)
		eventually(t, db.DB, 0, "select count(*) from tidings_claims")
		if ids := strings.Join(d.ids(), " "); ids != "k0 k1 k3 k4" && ids != "k0 k3 k1 k4" {
			t.Logf("sent %s", ids)
		}
		if n := d.attempts(); n < 3 { // once more for each time that it could not be parked
			t.Errorf("it was tried %d times; want 3", n)
		}
		var parked []transports.Poisoned
		for p, err := range relay.Parked(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			parked = append(parked, p)
		}
		if len(parked) != 1 || parked[0].Key() != (transports.EventKey{Source: "shop", ID: "k2"}) || parked[0].Attempts != 3 || !strings.Contains(parked[0].Reason, "refused") || parked[0].Topic != "order.created" {
			t.Fatalf("parked %+v", parked)
		}
		d.refuse("k2", nil)
		if n, err := relay.Redrive(t.Context(), parked[0].Handle); n != 1 || err != nil {
			t.Fatalf("redrive: %d, %v", n, err)
		}
		got := d.await(t, 5)[4].Message
		for key := range got.Metadata {
			if strings.HasPrefix(key, transports.HeaderPrefix) {
				t.Errorf("sent with %s", key)
			}
		}
		eventually(t, db.DB, 0, "select count(*) from tidings_deliveries")
	})
}

func TestTooLargeForTheDestinationIsParkedAtOnce(t *testing.T) {
	t.Parallel()
	db := newSQLite(t)
	ob := newOutbox(t, db)
	d := newDestination()
	d.refuse("k0", transports.TooLarge(2, 1))
	runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d, MinDelay: time.Hour, MaxDelay: time.Hour})
	commit(t, ob, numbered(0, 1, "k")...)
	eventually(t, db.DB, 1, "select count(*) from tidings_deliveries where state = 1")
	commit(t, ob, numbered(1, 1, "k")...)
	d.await(t, 1)
}

// Two relays of one destination: one is active, the other takes over when it stops.
func TestSecondRelayStandsBy(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ob, other := newOutbox(t, db), newOutbox(t, db)
		first, second := newDestination(), newDestination()
		_, stop := runRelay(t, ob, outbox.RelayConfig{Name: "d", To: first, Lease: time.Second})
		commit(t, ob, numbered(0, 3, "k")...)
		first.await(t, 3)
		runRelay(t, other, outbox.RelayConfig{Name: "d", To: second, Lease: time.Second})
		until(t, "the second one is there", func() bool {
			return count(t, db.DB, "select count(*) from tidings_subscriptions where owner <> ''") == 1
		})
		for i := 3; i < 23; i++ { // wakes the second one, and not the first
			commit(t, other, numbered(i, 1, "k")...)
		}
		first.await(t, 23)
		if n := second.attempts(); n != 0 {
			t.Errorf("both are active: the second one has sent %d batches", n)
		}
		stop()
		commit(t, other, numbered(23, 3, "k")...)
		second.await(t, 3)
		for i, id := range append(first.ids(), second.ids()...) {
			if id != fmt.Sprint("k", i) {
				t.Errorf("%s is sent as number %d", id, i)
			}
		}
	})
}

// A relay that loses its lease while the broker is silent gives up what it has not been
// confirmed, before another one sends it.
func TestRelayGivesUpWithItsLease(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB) database{"postgres": newPostgres, "mysql": newMySQL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := open(t)
			ob := newOutbox(t, db)
			d := &silent{given: make(chan context.Context, 1)}
			runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d, Lease: time.Second, SettleTimeout: time.Millisecond})
			commit(t, ob, numbered(0, 3, "k")...)
			ctx := <-d.given
			// Somebody takes over what it has claimed, as if this process had been asleep.
			eventually(t, db.DB, 1, "select count(*) from tidings_claims")
			mustExec(t, db.DB, "update tidings_claims set owner = 'other', lease_ms = lease_ms + 3600000")
			select {
			case <-ctx.Done():
				if cause := context.Cause(ctx); !strings.Contains(cause.Error(), "another relay") {
					t.Errorf("ended by %v", cause)
				}
			case <-time.After(deadline):
				t.Error("the relay goes on sending without a lease")
			}
		})
	}
}

// Without a lease to end it, a batch may wait for its confirms for as long as it takes.
func TestRelayKeepsItsLease(t *testing.T) {
	t.Parallel()
	db := newPostgres(t)
	ob := newOutbox(t, db)
	d := &silent{given: make(chan context.Context, 1)}
	const lease = 5 * time.Second // on a busy machine a heartbeat may be late
	runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d, Lease: lease, SettleTimeout: time.Millisecond})
	commit(t, ob, numbered(0, 3, "k")...)
	ctx := <-d.given
	select {
	case <-ctx.Done():
		t.Errorf("the relay gave up: %v", context.Cause(ctx))
	case <-time.After(lease * 5 / 2):
	}
}

func TestRunTwice(t *testing.T) {
	t.Parallel()
	ob := newOutbox(t, newSQLite(t))
	d := newDestination()
	relay, stop := runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d})
	commit(t, ob, ordered{})
	d.await(t, 1)
	if err := relay.Run(t.Context()); !errors.Is(err, outbox.ErrRunning) {
		t.Errorf("run: %v", err)
	}
	stop()
	if err := ob.Transport().RemoveSubscription(t.Context(), relay.Subscription()); err != nil {
		t.Error(err)
	}
}

// After a Publish in a transaction that somebody else commits, the event is found long
// before the next poll.
func TestForeignTransactionIsFoundSoon(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		const poll = 20 * time.Second
		ob := newOutbox(t, db, func(c *outbox.Config) { c.PollInterval = poll })
		d := newDestination()
		runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d, Lease: time.Hour})
		commit(t, ob, ordered{N: 1})
		d.await(t, 1)
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ob.Publish(t.Context(), tx, ordered{N: 2}); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		d.await(t, 2)
		if took := time.Since(began); took > poll/2 {
			t.Errorf("found after %s", took)
		}
	})
}

// Without a relay: a bus on the outbox's own log.
func TestBusOnTheSameDatabase(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ob := newOutbox(t, db)
		b, err := bus.New(ob.Transport(), bus.Config{Source: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan events.Metadata, 10)
		bus.Subscribe(b, "s", func(ctx context.Context, _ ordered) error {
			md, _ := events.MetadataFrom(ctx)
			got <- md
			return nil
		})
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		commit(t, ob, outbox.With(ordered{}, bus.WithID("1")))
		select {
		case md := <-got:
			if md.ID != "1" || md.Source != "shop" {
				t.Errorf("handled %+v", md)
			}
		case <-time.After(deadline):
			t.Error("not handled")
		}
		if err := b.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// A panic in InTx rolls back.
func TestInTxRollsBackAPanic(t *testing.T) {
	t.Parallel()
	db := newSQLite(t)
	ob := newOutbox(t, db)
	func() {
		defer func() { _ = recover() }()
		_ = ob.InTx(t.Context(), nil, func(ctx context.Context, tx *sql.Tx) error {
			if err := ob.Publish(ctx, tx, ordered{}); err != nil {
				t.Error(err)
			}
			panic("oh")
		})
	}()
	commit(t, ob, ordered{})
	if n := count(t, db.DB, "select count(*) from tidings_messages"); n != 1 {
		t.Errorf("%d events", n)
	}
}

// silent never confirms.
type silent struct {
	destination
	given chan context.Context
}

func (s *silent) PublishBatch(ctx context.Context, _ []transports.Outgoing) error {
	select {
	case s.given <- ctx:
	default:
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// plainDestination is a transport that takes no batches and names no message, as a
// Watermill publisher is. It fails the first calls, and always with the bad event.
type plainDestination struct {
	inner destination
	fail  int
	bad   string

	badFor int // calls; 0: for ever
}

func (p *plainDestination) Publish(topic string, messages ...*message.Message) error {
	p.inner.mu.Lock()
	defer p.inner.mu.Unlock()
	if p.fail--; p.fail >= 0 {
		return errRefused
	}
	if slices.ContainsFunc(messages, func(m *message.Message) bool { return m.UUID == p.bad }) {
		if p.badFor--; p.badFor == 0 {
			p.bad = ""
		}
		return errRefused
	}
	for _, m := range messages {
		p.inner.got = append(p.inner.got, transports.Outgoing{Topic: topic, Message: m})
	}
	return nil
}

func (p *plainDestination) ids() []string { return p.inner.ids() }

func (p *plainDestination) count() int { return len(p.ids()) }

func (p *plainDestination) Subscribe(context.Context, transports.Subscription) (<-chan *message.Message, error) {
	return nil, transports.ErrUnsupported
}

func (*plainDestination) Close() error { return nil }

package guide

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports/memory"
)

// A publisher that does not know whether its event was stored publishes it again, under
// the same id; the inbox handles it once.
func Example_inbox() {
	db, remove := openSQLite()
	defer remove()
	ctx := context.Background()
	_, err := db.ExecContext(ctx, `create table stock (product integer primary key, reserved integer not null)`)
	check(err)
	_, err = db.ExecContext(ctx, `insert into stock values (7, 0)`)
	check(err)
	w := newWorld(bus.Config{})

	// region inbox
	ib, err := inbox.New(ctx, inbox.Config{DB: db}) // makes its table
	check(err)
	inbox.Subscribe(w.Bus, ib, "reserve", func(ctx context.Context, tx *sql.Tx, e events.OrderCreated) error {
		for _, item := range e.Items {
			_, err := tx.ExecContext(ctx, `update stock set reserved = reserved + ? where product = ?`, item.Quantity, item.ProductID)
			if err != nil {
				return err // rolled back, with the mark; tried again
			}
		}
		return nil // committed, with the mark that this event is done
	})
	// endregion
	check(w.Start(ctx))
	// region again
	id := events.NewID() // kept with the order, if the publisher may be restarted in between
	check(w.Publish(ctx, newOrder(1), bus.WithID(id)))
	check(w.Publish(ctx, newOrder(1), bus.WithID(id))) // after an error: it may have been stored or not
	// endregion
	w.idle()
	var reserved int
	check(db.QueryRowContext(ctx, `select reserved from stock`).Scan(&reserved))
	fmt.Println("reserved:", reserved)
	w.end()
	check(ib.Close())
	// Output: reserved: 1
}

// The inbox as a deduplication store, for handlers whose effects are elsewhere.
func Example_dedup() {
	db, remove := openSQLite()
	defer remove()
	ctx := context.Background()
	ib, err := inbox.New(ctx, inbox.Config{DB: db})
	check(err)
	// region dedup
	cfg := bus.Config{
		Dedup: ib, // claimed before the handler runs, marked as done after it
	}
	// endregion
	w := newWorld(cfg)
	bus.Subscribe(w.Bus, "welcome", printWelcome)
	check(w.Start(ctx))
	for range 3 {
		check(w.Publish(ctx, ada, bus.WithID("created-42")))
	}
	w.idle()
	w.end()
	check(ib.Close())
	// Output: welcome, ada@example.com
}

// Services that share a database need no broker and no relay.
func Example_outboxAsTransport() {
	db, remove := openSQLite()
	defer remove()
	ctx := context.Background()
	handled := make(chan struct{})
	// region shared
	ob, err := outbox.New(ctx, outbox.Config{DB: db, Source: "shop"})
	check(err)
	b, err := bus.New(ob.Transport(), bus.Config{Source: "shop"})
	check(err)
	bus.Subscribe(b, "welcome", func(ctx context.Context, e events.CustomerCreated) error {
		defer close(handled)
		return printWelcome(ctx, e)
	})
	check(b.Start(ctx))
	check(ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error {
		return ob.Publish(ctx, tx, ada) // and the business data
	}))
	// endregion
	<-handled
	check(b.Shutdown(ctx))
	check(ob.Close())
	// Output: welcome, ada@example.com
}

// What the destination refuses is parked, and nothing else waits for it.
func Example_parked() {
	db, remove := openSQLite()
	defer remove()
	ctx, cancel := context.WithCancel(context.Background())
	ob, err := outbox.New(ctx, outbox.Config{DB: db, Source: "shop"})
	check(err)
	small, err := memory.New(memory.Config{MaxMessageBytes: 10}) // too small for the event
	check(err)
	relay, err := outbox.NewRelay(ob, outbox.RelayConfig{Name: "broker", To: small})
	check(err)
	check(relay.Declare(ctx))
	check(ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error {
		return ob.Publish(ctx, tx, outbox.With(ada, bus.WithID("created-42")))
	}))
	ended := make(chan error)
	go func() { ended <- relay.Run(ctx) }()
	for { // the event waits, is tried, and is parked
		stats, err := ob.Stats(ctx)
		check(err)
		if stats[0].Parked == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	// region parked
	stats, err := ob.Stats(ctx)
	check(err)
	for _, s := range stats {
		fmt.Println(s.Name, "waiting:", s.Waiting, "oldest:", s.Age, "parked:", s.Parked)
	}
	for p, err := range relay.Parked(ctx) {
		check(err)
		fmt.Println(p.Key().ID, "-", p.Reason)
		_, err = relay.Discard(ctx, p.Handle) // or relay.Redrive, once the destination takes it
		check(err)
	}
	// endregion
	cancel()
	check(<-ended)
	check(ob.Close())
	check(small.Close())
	// Output:
	// broker waiting: 0 oldest: 0s parked: 1
	// created-42 - message is too large: payload of 64 bytes, limit 10
}

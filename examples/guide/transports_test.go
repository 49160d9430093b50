package guide

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
	"github.com/gotidings/tidings/transports/rabbitmq"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Two services of one test talk by one broker in memory.
func Example_memoryBroker() {
	ctx := context.Background()
	handled := make(chan struct{})
	// region memory
	broker, err := memory.NewBroker(memory.Config{QueueSize: 1000})
	check(err)
	shop, mail := broker.Connect(), broker.Connect() // as two processes would have
	// endregion
	publisher, err := bus.New(shop, bus.Config{Source: "shop"})
	check(err)
	subscriber, err := bus.New(mail, bus.Config{Source: "mail"})
	check(err)
	bus.Subscribe(subscriber, "welcome", func(ctx context.Context, e events.CustomerCreated) error {
		defer close(handled)
		return printWelcome(ctx, e)
	})
	check(subscriber.Start(ctx))
	check(publisher.Publish(ctx, ada)) // a bus that only publishes needs no Start
	<-handled
	check(subscriber.Shutdown(ctx))
	check(errors.Join(shop.Close(), mail.Close()))
	// Output: welcome, ada@example.com
}

// region rabbitmq

func openRabbitMQ(ctx context.Context, url string, log *slog.Logger) (transports.Transport, error) {
	return rabbitmq.Open(ctx, rabbitmq.Config{
		URLs:       []string{url}, // of each node of the cluster
		Unroutable: rabbitmq.Keep, // what nobody subscribes to goes to the queue tidings.unrouted
		Name:       "shop",        // on the management page
		Logger:     log,
	})
}

// endregion

func TestOpenRabbitMQ(t *testing.T) {
	t.Parallel()
	tr, err := openRabbitMQ(t.Context(), testserver.RabbitMQ(t), slog.New(slog.DiscardHandler))
	must(t, err)
	defer mustClose(t, tr)
	must(t, tr.(transports.Pinger).Ping(t.Context()))
}

// A transport on the service's own database, and a subscription that begins with what was
// published before it.
func Example_sqlFromBeginning() {
	db, remove := openSQLite()
	defer remove()
	ctx := context.Background()
	handled := make(chan struct{})
	// region sql
	transport, err := tsql.New(ctx, db, tsql.Config{Retention: 30 * 24 * time.Hour}) // makes its tables
	check(err)
	// endregion
	b, err := bus.New(transport, bus.Config{Source: "shop"})
	check(err)
	check(b.Publish(ctx, ada)) // nobody subscribes yet
	// region beginning
	err = transport.DeclareSubscription(ctx, transports.Subscription{
		Name: "shop.report", Topics: []string{"customer.created"}, Concurrency: 1,
	}, tsql.FromBeginning) // once, before the first Start: after it the subscription has its place
	// endregion
	check(err)
	bus.Subscribe(b, "report", func(ctx context.Context, e events.CustomerCreated) error {
		defer close(handled)
		return printWelcome(ctx, e)
	})
	check(b.Start(ctx))
	<-handled
	check(b.Shutdown(ctx))
	check(transport.Close())
	// Output: welcome, ada@example.com
}

// region publishtx

// rename changes a customer and says so, both or neither.
func rename(ctx context.Context, db *sql.DB, transport *tsql.Transport, enc *bus.Encoder, event any) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	msg, err := enc.Encode(ctx, event)
	if err != nil {
		return err
	}
	if err := transport.PublishTx(ctx, tx, msg); err != nil { // outbox.Publish does both in one
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	transport.Wake() // else it is found a PollInterval later
	return nil
}

// endregion

func Example_publishTx() {
	db, remove := openSQLite()
	defer remove()
	ctx := context.Background()
	transport, err := tsql.New(ctx, db, tsql.Config{})
	check(err)
	check(transport.DeclareSubscription(ctx, transports.Subscription{Name: "all", Topics: []string{"#"}, Concurrency: 1}, tsql.FromNow))
	enc, err := bus.NewEncoder(bus.EncoderConfig{Source: "shop"})
	check(err)
	check(rename(ctx, db, transport, enc, ada))
	backlogs, err := transport.Backlogs(ctx, "")
	check(err)
	fmt.Println(backlogs[0].Subscription, backlogs[0].Depth.Ready)
	check(transport.Close())
	// Output: all 1
}

package outboxtest

import (
	"context"
	"database/sql"
	"testing"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// region outbox

func placeOrder(ctx context.Context, ob *outbox.Outbox, order events.OrderCreated) error {
	return ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `insert into orders (id) values (1)`); err != nil {
			return err
		}
		return ob.Publish(ctx, tx, order) // sent if and only if the transaction commits
	})
}

func relay(ctx context.Context, ob *outbox.Outbox, broker transports.Transport) error {
	r, err := outbox.NewRelay(ob, outbox.RelayConfig{Name: "broker", To: broker})
	if err != nil {
		return err
	}
	return r.Run(ctx) // in this process or in one of its own
}

func subscribe(b *bus.Bus, ib *inbox.Inbox) {
	inbox.Subscribe(b, ib, "reserve-inventory", func(ctx context.Context, tx *sql.Tx, e events.OrderCreated) error {
		_, err := tx.ExecContext(ctx, `insert into reserved (id) values (1)`) // once, however often the event comes
		return err                                                            // ob.Publish(ctx, tx, …) is in the same transaction as well
	})
}

// endregion

func TestReadme(t *testing.T) {
	t.Parallel()
	db := newSQLite(t)
	for _, table := range []string{"orders", "reserved"} {
		mustExec(t, db.DB, "create table "+table+" (id integer)")
	}
	ob, ib := newOutbox(t, db), newInbox(t, db, inbox.Config{})
	broker, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.New(broker, bus.Config{Source: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	subscribe(b, ib)
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- relay(ctx, ob, broker) }()
	order := events.OrderCreated{OrderID: 1, CustomerID: 2, Items: []events.OrderItem{{ProductID: 3, Quantity: 1}}}
	if err := placeOrder(t.Context(), ob, order); err != nil {
		t.Fatal(err)
	}
	eventually(t, db.DB, 1, "select count(*) from reserved")
	cancel()
	shutdown, stop := context.WithTimeout(context.Background(), deadline)
	defer stop()
	for _, err := range []error{<-done, b.Shutdown(shutdown), broker.Close()} {
		if err != nil {
			t.Error(err)
		}
	}
}

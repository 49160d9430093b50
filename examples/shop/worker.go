package main

import (
	"context"
	"database/sql"
	"log/slog"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/handlers"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
)

// worker handles the shop's events.
type worker struct {
	db       *database
	ob       *outbox.Outbox
	mail     *mailer
	vipAfter int // orders
}

// newBus makes the worker's bus, with its subscriptions, and does not start it.
func newBus(from transports.Transport, cfg config, w *worker, ib *inbox.Inbox, log *slog.Logger) (*bus.Bus, error) {
	b, err := bus.New(from, bus.Config{
		Source:          cfg.name,
		ShutdownTimeout: cfg.shutdownTimeout,
		Middleware:      []message.HandlerMiddleware{only(cfg.name)},
		Logger:          log,
	})
	if err != nil {
		return nil, err
	}
	// region inbox
	// Effects in our own database happen once: they are in the inbox's transaction.
	inbox.Subscribe(b, ib, "reserve-inventory", w.reserve)
	inbox.Subscribe(b, ib, "promote-customer", w.promote)
	// Others happen at least once, with a key by which the provider knows them again.
	bus.Subscribe(b, "confirm-order", w.mail.confirm, bus.WithoutDedup())
	bus.Subscribe(b, "send-welcome-email", handlers.WelcomeEmail(w.mail), bus.WithoutDedup())
	bus.Subscribe(b, "send-vip-greeting", handlers.VIPGreeting(w.mail), bus.WithoutDedup())
	// endregion
	return b, nil
}

// only passes over the events of other shops on the same broker.
func only(source string) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			if md, ok := events.MetadataFrom(msg.Context()); ok && md.Source != source {
				return nil, nil
			}
			return h(msg)
		}
	}
}

// reserve sets the items of an order aside.
func (w *worker) reserve(ctx context.Context, tx *sql.Tx, e events.OrderCreated) error {
	// Every handler locks rows of the stock in the same order, or two would wait for
	// each other.
	lines := make([]int, len(e.Items))
	for i := range lines {
		lines[i] = i
	}
	slices.SortStableFunc(lines, func(a, b int) int { return int(e.Items[a].ProductID - e.Items[b].ProductID) })
	for _, line := range lines {
		item := e.Items[line]
		err := w.db.exec(ctx, tx, `insert into shop_reservations (order_id, line, product_id, quantity) values (?, ?, ?, ?)`,
			e.OrderID, line, item.ProductID, item.Quantity)
		if err != nil {
			return err
		}
		err = w.db.exec(ctx, tx, `update shop_stock set reserved = reserved + ? where product_id = ?`, item.Quantity, item.ProductID)
		if err != nil {
			return err
		}
	}
	return nil
}

// promote counts the orders of a customer, and makes a VIP of one who has enough. What it
// publishes is sent if the count is committed.
func (w *worker) promote(ctx context.Context, tx *sql.Tx, e events.OrderCreated) error {
	err := w.db.exec(ctx, tx, `update shop_customers set orders = orders + 1 where id = ?`, e.CustomerID)
	if err != nil {
		return err
	}
	var name string
	var placed, vip int
	row := tx.QueryRowContext(ctx, w.db.q(`select name, orders, vip from shop_customers where id = ?`), e.CustomerID)
	if err := row.Scan(&name, &placed, &vip); err != nil {
		return err
	}
	if placed < w.vipAfter || vip != 0 {
		return nil
	}
	if err := w.db.exec(ctx, tx, `update shop_customers set vip = 1 where id = ?`, e.CustomerID); err != nil {
		return err
	}
	return w.ob.Publish(ctx, tx, events.CustomerPromotedToVIP{CustomerID: e.CustomerID, CustomerName: name, PromotedAt: time.Now()})
}

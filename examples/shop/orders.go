package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/outbox"
)

var (
	errNoCustomer = errors.New("there is no such customer")
	errNoOrder    = errors.New("there is no such order")
)

// orders is the business of the HTTP service: what it writes to the database, and the
// events that it publishes in the same transactions.
type orders struct {
	db *database
	ob *outbox.Outbox
}

// register adds a customer and publishes CustomerCreated.
func (o *orders) register(ctx context.Context, c customer) (id int64, err error) {
	// region outbox
	err = o.ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error {
		id, err = o.db.insert(ctx, tx, `insert into shop_customers (name, email) values (?, ?)`, c.Name, c.Email)
		if err != nil {
			return err
		}
		return o.ob.Publish(ctx, tx, events.CustomerCreated{CustomerID: id, CustomerName: c.Name, Email: c.Email})
	})
	// endregion
	return id, err
}

// place adds an order and publishes OrderCreated.
func (o *orders) place(ctx context.Context, r orderRequest) (placed events.OrderCreated, err error) {
	placed = r.priced()
	err = o.ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error {
		var found int
		row := tx.QueryRowContext(ctx, o.db.q(`select count(*) from shop_customers where id = ?`), r.CustomerID)
		if err := row.Scan(&found); err != nil {
			return err
		}
		if found == 0 {
			return errNoCustomer
		}
		placed.OrderID, err = o.db.insert(ctx, tx, `insert into shop_orders (customer_id, total) values (?, ?)`,
			r.CustomerID, placed.TotalAmount.String())
		if err != nil {
			return err
		}
		for line, item := range placed.Items {
			err := o.db.exec(ctx, tx, `insert into shop_order_items (order_id, line, product_id, quantity) values (?, ?, ?, ?)`,
				placed.OrderID, line, item.ProductID, item.Quantity)
			if err != nil {
				return err
			}
		}
		return o.ob.Publish(ctx, tx, placed)
	})
	return placed, err
}

// orderState is an order as it is shown. The last two fields are the worker's, and become
// true a moment after the order was placed.
type orderState struct {
	OrderID     int64        `json:"orderId"`
	CustomerID  int64        `json:"customerId"`
	TotalAmount events.Money `json:"totalAmount"`
	Reserved    bool         `json:"reserved"`
	Emailed     bool         `json:"emailed"`
}

// find returns the state of an order, or errNoOrder.
func (o *orders) find(ctx context.Context, id int64) (state orderState, err error) {
	var total string
	var items, reserved, emails int
	err = o.db.QueryRowContext(ctx, o.db.q(`
select o.id, o.customer_id, o.total,
	(select count(*) from shop_order_items i where i.order_id = o.id),
	(select count(*) from shop_reservations r where r.order_id = o.id),
	(select count(*) from shop_emails e where e.order_id = o.id)
from shop_orders o where o.id = ?`), id).Scan(&state.OrderID, &state.CustomerID, &total, &items, &reserved, &emails)
	if errors.Is(err, sql.ErrNoRows) {
		return state, errNoOrder
	}
	if err != nil {
		return state, err
	}
	if state.TotalAmount, err = events.ParseMoney(total); err != nil {
		return state, fmt.Errorf("total of order %d: %w", id, err)
	}
	state.Reserved, state.Emailed = reserved >= items, emails > 0
	return state, nil
}

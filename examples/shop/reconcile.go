package main

import (
	"context"
	"errors"
	"fmt"
)

// tally is what became of a load.
type tally struct {
	orders   int // that are in the database
	reserved int // of them, those with every item reserved exactly once
	emails   int // of them, those with exactly one confirmation
	vips     int // customers with enough orders
	greeted  int // of them, those that were promoted, and greeted exactly once
	lost     int // orders or promotions of which something is missing
	doubled  int // orders or promotions of which something was done twice
}

func (t tally) String() string {
	return fmt.Sprintf("orders=%d reserved=%d emails=%d lost=%d doubled=%d", t.orders, t.reserved, t.emails, t.lost, t.doubled)
}

// reconcile compares the orders and customers of this run with what the workers have done.
func (l *load) reconcile(ctx context.Context) (t tally, err error) {
	missing := map[int64]bool{} // accepted over HTTP, and not in the database
	if l.clients != nil {
		missing = l.clients.orders()
	}
	if err := l.countOrders(ctx, &t, missing); err != nil {
		return t, fmt.Errorf("reconcile orders: %w", err)
	}
	t.lost += len(missing)
	if err := l.countVIPs(ctx, &t); err != nil {
		return t, fmt.Errorf("reconcile promotions: %w", err)
	}
	return t, nil
}

// countOrders counts orders, and takes off missing what it finds.
func (l *load) countOrders(ctx context.Context, t *tally, missing map[int64]bool) (err error) {
	db := l.service.db
	rows, err := db.QueryContext(ctx, db.q(`
select o.id,
	(select count(*) from shop_order_items i where i.order_id = o.id),
	(select count(*) from shop_reservations r where r.order_id = o.id),
	(select count(distinct r.line) from shop_reservations r where r.order_id = o.id),
	(select count(*) from shop_emails e where e.order_id = o.id)
from shop_orders o join shop_customers c on c.id = o.customer_id
where c.email like ?`), l.run+"-%")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id int64
		var items, reservations, lines, emails int
		if err := rows.Scan(&id, &items, &reservations, &lines, &emails); err != nil {
			return err
		}
		delete(missing, id)
		t.orders++
		t.reserved += one(reservations == items && lines == items)
		t.emails += one(emails == 1)
		t.lost += one(lines < items || emails == 0)
		t.doubled += one(reservations > lines || emails > 1)
	}
	return rows.Err()
}

func (l *load) countVIPs(ctx context.Context, t *tally) (err error) {
	db := l.service.db
	rows, err := db.QueryContext(ctx, db.q(`
select c.vip, c.orders,
	(select count(*) from shop_orders o where o.customer_id = c.id),
	(select count(*) from shop_emails e where e.customer_id = c.id and e.kind = 'vip')
from shop_customers c where c.email like ?`), l.run+"-%")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var vip, counted, placed, greetings int
		if err := rows.Scan(&vip, &counted, &placed, &greetings); err != nil {
			return err
		}
		due := placed >= l.cfg.vipAfter
		t.vips += one(due)
		t.greeted += one(due && vip == 1 && greetings == 1)
		t.lost += one(counted < placed || due && (vip == 0 || greetings == 0))
		t.doubled += one(counted > placed || greetings > 1)
	}
	return rows.Err()
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

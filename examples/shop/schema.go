package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/gotidings/tidings/events"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// products are what the shop sells.
const products = 100

// price returns what a piece costs.
func price(productID int64) events.Money { return events.NewMoney(productID*100-1, 2) }

// schema are the shop's tables. Those of the outbox and the inbox are beside them, made by
// these packages. {id} is a number that the database gives.
var schema = []string{
	`create table if not exists shop_customers (
	id {id}, name varchar(200) not null, email varchar(320) not null,
	vip integer not null default 0, orders integer not null default 0)`,

	`create table if not exists shop_orders (id {id}, customer_id bigint not null, total varchar(50) not null)`,

	`create table if not exists shop_order_items (
	order_id bigint not null, line integer not null, product_id bigint not null, quantity bigint not null,
	primary key (order_id, line))`,

	// The worker's.
	`create table if not exists shop_stock (product_id bigint not null primary key, reserved bigint not null)`,

	// Nothing here forbids to reserve an item twice: that is left to the inbox, and
	// reconciliation would show it.
	`create table if not exists shop_reservations (
	id {id}, order_id bigint not null, line integer not null, product_id bigint not null, quantity bigint not null)`,

	// What the mail provider has accepted. It is in the same database for the example's
	// sake only, and no transaction of the shop writes to it.
	`create table if not exists shop_emails (
	idempotency_key varchar(64) not null primary key, kind varchar(20) not null,
	customer_id bigint not null, order_id bigint not null)`,
}

var indexes = map[string]string{
	"shop_orders_customer":    "shop_orders (customer_id)",
	"shop_reservations_order": "shop_reservations (order_id)",
	"shop_emails_order":       "shop_emails (order_id)",
	"shop_emails_customer":    "shop_emails (customer_id)",
}

// migrate makes the tables that are not there yet. Several processes may do so at once.
func (db *database) migrate(ctx context.Context) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing to do after the commit
	id, insert := "", "insert into shop_stock values (?, 0) on conflict do nothing"
	switch db.dialect {
	case tsql.Postgres:
		id = "bigint generated always as identity primary key"
		// Two "create table if not exists" at once can fail in PostgreSQL.
		const lock = 0x73686f70 // "shop", a number that nobody else takes
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("select pg_advisory_xact_lock(%d)", lock)); err != nil {
			return err
		}
	case tsql.MySQL:
		id = "bigint not null auto_increment primary key"
		insert = "insert ignore into shop_stock values (?, 0)"
	case tsql.SQLite:
		id = "integer primary key autoincrement"
	}
	for _, table := range schema {
		if err := db.exec(ctx, tx, strings.ReplaceAll(table, "{id}", id)); err != nil {
			return fmt.Errorf("make the tables: %w", err)
		}
	}
	for name, columns := range indexes {
		if err := db.makeIndex(ctx, tx, name, columns); err != nil {
			return fmt.Errorf("make the indexes: %w", err)
		}
	}
	for product := range int64(products) {
		if err := db.exec(ctx, tx, insert, product+1); err != nil {
			return fmt.Errorf("fill the stock: %w", err)
		}
	}
	return tx.Commit()
}

func (db *database) makeIndex(ctx context.Context, tx *sql.Tx, name, columns string) error {
	if db.dialect != tsql.MySQL {
		return db.exec(ctx, tx, "create index if not exists "+name+" on "+columns)
	}
	const exists = 1061 // ER_DUP_KEYNAME; MySQL has no "if not exists" here
	err := db.exec(ctx, tx, "create index "+name+" on "+columns)
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok && e.Number == exists {
		return nil
	}
	return err
}

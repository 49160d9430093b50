package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/handlers"
)

// mailer stands for a mail provider that now and then fails, and that takes an
// idempotency key: it accepts an e-mail once, however often it is asked. A table is its
// memory.
type mailer struct {
	db       *database
	failures float64 // the part of the calls that fails
}

var _ handlers.Mailer = (*mailer)(nil)

var (
	errMailRefused = errors.New("the mail provider is out of order")
	errMailUnsure  = errors.New("the mail provider's answer was lost")
)

// confirm tells a customer that an order was received.
func (m *mailer) confirm(ctx context.Context, e events.OrderCreated) error {
	md, _ := events.MetadataFrom(ctx)
	// Every delivery of the event has the same key, and every other e-mail another one.
	key := sha256.Sum256([]byte("confirmation\n" + md.Source + "\n" + md.ID))
	return m.send(ctx, email{key: hex.EncodeToString(key[:]), kind: "confirmation", customerID: e.CustomerID, orderID: e.OrderID})
}

// SendWelcome welcomes a customer.
func (m *mailer) SendWelcome(ctx context.Context, key string, e events.CustomerCreated) error {
	return m.send(ctx, email{key: key, kind: "welcome", customerID: e.CustomerID})
}

// SendVIPGreeting congratulates a customer.
func (m *mailer) SendVIPGreeting(ctx context.Context, key string, e events.CustomerPromotedToVIP) error {
	return m.send(ctx, email{key: key, kind: "vip", customerID: e.CustomerID})
}

type email struct {
	key, kind           string
	customerID, orderID int64 // orderID is 0 when it is about none
}

// send fails now and then: half of the times before the e-mail is accepted, and half of
// them after that, when the caller can't know.
func (m *mailer) send(ctx context.Context, e email) error {
	chance := rand.Float64()
	if chance < m.failures/2 {
		return errMailRefused
	}
	err := m.db.exec(ctx, m.db, `insert into shop_emails (idempotency_key, kind, customer_id, order_id) values (?, ?, ?, ?)`,
		e.key, e.kind, e.customerID, e.orderID)
	if err != nil {
		var known int // the insert fails as well when the key is there already
		row := m.db.QueryRowContext(ctx, m.db.q(`select count(*) from shop_emails where idempotency_key = ?`), e.key)
		if scanErr := row.Scan(&known); scanErr != nil || known == 0 {
			return err
		}
	}
	if chance < m.failures {
		return errMailUnsure
	}
	return nil
}

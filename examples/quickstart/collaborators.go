package main

import (
	"context"
	"crypto/sha256"
	"sync"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/handlers"
)

// collaborators stand in for what a shop's handlers work with: its mail server, its
// stock, and so on. They do nothing but keep the promises of the interfaces, and fail
// as they are told.
type collaborators struct {
	faults *faults

	mu       sync.Mutex                     // guards what follows
	done     map[[sha256.Size]byte]struct{} // idempotency keys of what was done; hashed, to be small
	reserved map[int64]int64                // pieces by product
}

var (
	_ handlers.Mailer    = (*collaborators)(nil)
	_ handlers.Inventory = (*collaborators)(nil)
	_ handlers.Notifier  = (*collaborators)(nil)
	_ handlers.Analytics = (*collaborators)(nil)
	_ handlers.Alerter   = (*collaborators)(nil)
)

func newCollaborators(f *faults) *collaborators {
	return &collaborators{faults: f, done: make(map[[sha256.Size]byte]struct{}), reserved: make(map[int64]int64)}
}

// SendWelcome accepts an e-mail.
func (c *collaborators) SendWelcome(ctx context.Context, key string, _ events.CustomerCreated) error {
	return c.once(key, c.faults.check(ctx, mailServer), func() {})
}

// SendVIPGreeting accepts an e-mail.
func (c *collaborators) SendVIPGreeting(ctx context.Context, key string, _ events.CustomerPromotedToVIP) error {
	return c.once(key, c.faults.check(ctx, mailServer), func() {})
}

// Reserve sets pieces aside.
func (c *collaborators) Reserve(ctx context.Context, key string, r handlers.Reservation) error {
	var err error
	if r.ProductID == scarceProduct { // the other items of the order are in stock
		err = c.faults.check(ctx, stock)
	}
	return c.once(key, err, func() { c.reserved[r.ProductID] += r.Quantity })
}

// NotifyProcessed accepts a notification.
func (c *collaborators) NotifyProcessed(ctx context.Context, key string, _ events.DocumentProcessed) error {
	return c.once(key, c.faults.check(ctx, pushGateway), func() {})
}

// RecordProcessed records a document.
func (c *collaborators) RecordProcessed(ctx context.Context, key string, _ events.DocumentProcessed) error {
	return c.once(key, c.faults.check(ctx, statistics), func() {})
}

// AlertFailed raises an alert.
func (c *collaborators) AlertFailed(ctx context.Context, key string, _ events.DocumentFailed) error {
	return c.once(key, c.faults.check(ctx, pager), func() {})
}

// once has an effect unless a call with its key had it before, or fails with err.
func (c *collaborators) once(key string, err error, effect func()) error {
	hash := sha256.Sum256([]byte(key))
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, done := c.done[hash]; done {
		return nil
	}
	if err != nil {
		return err
	}
	effect()
	c.done[hash] = struct{}{}
	return nil
}

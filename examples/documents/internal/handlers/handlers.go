// Package handlers has what happens after a document was processed or has failed: its owner is
// told, it is counted, it is refunded. None knows of the others, nor the processing of them.
package handlers

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/inbox"
)

// Names of the subscriptions in their service.
const (
	NotifyName = "notify"
	CountName  = "statistics"
	RefundName = "refund"
)

// Schema makes the table of the statistics.
var Schema = []string{
	`create table if not exists document_statistics (
		owner varchar(200) not null, category varchar(200) not null, documents bigint not null, primary key (owner, category))`,
}

// Notify tells the owners of documents what has become of them. A notification is sent at
// least once: a provider that knows the event's id again makes one of two.
func Notify(b *bus.Bus, store *document.Store, log *slog.Logger) {
	s := b.Subscription(NotifyName, bus.WithoutDedup())
	bus.On(s, func(ctx context.Context, e events.DocumentProcessed) error {
		log.InfoContext(ctx, "notification: your document is ready", "user", e.UserID, "document", e.DocumentID)
		return nil
	})
	bus.On(s, func(ctx context.Context, e events.DocumentFailed) error {
		d, err := store.Get(ctx, e.DocumentID) // the event does not say whose it is
		if err != nil {
			return err
		}
		log.InfoContext(ctx, "notification: your document could not be processed", "user", d.Owner, "document", d.ID, "reason", e.Error)
		return nil
	})
}

// Count counts the documents of each category. The count and the mark that the event was
// counted are one transaction, so that each counts once.
func Count(b *bus.Bus, ib *inbox.Inbox) {
	inbox.Subscribe(b, ib, CountName, func(ctx context.Context, tx *sql.Tx, e events.DocumentProcessed) error {
		var results document.Results
		if err := json.Unmarshal(e.ProcessingResults, &results); err != nil {
			return bus.Permanent(fmt.Errorf("results of document %s: %w", e.DocumentID, err))
		}
		_, err := tx.ExecContext(ctx, `insert into document_statistics (owner, category, documents) values ($1, $2, 1)
			on conflict (owner, category) do update set documents = document_statistics.documents + 1`, e.UserID, results.Category)
		return err
	})
}

// Refund calls refund for each document that has failed, until it succeeds: it may be called
// again for one. While the circuit of the breaker, which is that of refund's client, is open,
// it waits.
func Refund(b *bus.Bus, breaker circuitbreaker.CircuitBreaker[any], refund func(ctx context.Context, documentID string) error) {
	s := b.Subscription(RefundName, bus.WithoutDedup(), bus.ObserveCircuitBreaker(breaker))
	bus.On(s, func(ctx context.Context, e events.DocumentFailed) error { return refund(ctx, e.DocumentID) })
}

// Statistics returns how many documents of a user were processed, by category.
func Statistics(ctx context.Context, db *sql.DB, owner string) (counts map[string]int, err error) {
	rows, err := db.QueryContext(ctx, `select category, documents from document_statistics where owner = $1`, owner)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	counts = make(map[string]int)
	for rows.Next() {
		var category string
		var n int
		if err := rows.Scan(&category, &n); err != nil {
			return nil, err
		}
		counts[category] = n
	}
	return counts, rows.Err()
}

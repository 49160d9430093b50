package sql

import (
	"context"
	"slices"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

var _ transports.BatchRequeuer = (*Transport)(nil)

// RequeueBatch stores copies of messages for one subscription, in one transaction: all of
// them, or none. They are delivered in this order where a consumer takes one after the
// other.
func (t *Transport) RequeueBatch(ctx context.Context, subscription string, messages ...*message.Message) error {
	err := t.do(ctx, func(ctx context.Context) error {
		return t.store.inTx(ctx, func(tx Tx) error { return t.store.requeue(ctx, tx, subscription, messages) })
	})
	t.Wake()
	return err
}

// RequeueTx is [Transport.RequeueBatch] in the caller's transaction. Call [Transport.Wake]
// after the commit.
func (t *Transport) RequeueTx(ctx context.Context, tx Tx, subscription string, messages ...*message.Message) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	if err := checkTx(tx); err != nil {
		return err
	}
	return t.store.requeue(ctx, tx, subscription, messages)
}

// requeue inserts exceptions that are due now, as many with a statement as parameters allow.
func (s *store) requeue(ctx context.Context, tx Tx, subscription string, messages []*message.Message) error {
	if err := s.dialect.writeFirst(ctx, s, tx); err != nil {
		return err
	}
	var id int64
	found, err := s.one(ctx, tx, []any{&id}, `select id from {subscriptions} where name = ?`, subscription)
	if err != nil {
		return err
	}
	if !found {
		return unknownSubscription(subscription)
	}
	rows := make([]row, len(messages))
	for i, msg := range messages {
		if rows[i], err = rowOf(transports.Topic(msg), msg); err != nil {
			return err
		}
	}
	for len(rows) > 0 {
		n := s.insertPart(rows)
		args := make([]any, 0, 7*n)
		for i, r := range rows[:n] {
			args = append(args, id, r.topic, r.eventID, r.source, eventHash(messages[i].Metadata[sourceKey], r.eventID), r.metadata, r.payload)
		}
		values := slices.Repeat([]string{"(?, 0, {now}, '', ?, ?, ?, ?, ?, ?, {now})"}, n)
		_, err := s.exec(ctx, tx, `
insert into {deliveries} (subscription_id, state, due_ms, owner, topic, event_id, source, event_hash, metadata, payload, created_ms) values `+strings.Join(values, ", "), args...)
		if err != nil {
			return err
		}
		rows, messages = rows[n:], messages[n:]
	}
	return nil
}

package sql

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// States of a delivery: a message of one subscription that is not where it was in the
// log any more, because something went wrong with it.
const (
	stateWaiting  = 0 // to be delivered when it is due; while it is being handled, that is the end of the lease
	statePoisoned = 1
)

// exception stores a copy of msg for one subscription.
//
// The due time of a poisoned one is 0, so that an index has them in the order of their ids.
func (s *store) exception(ctx context.Context, subscription string, msg *message.Message, state int, delay int64) error {
	r, err := rowOf(transports.Topic(msg), msg)
	if err != nil {
		return err
	}
	source := msg.Metadata[sourceKey]
	n, err := s.exec(ctx, s.db, `
insert into {deliveries} (subscription_id, state, due_ms, owner, topic, event_id, source, event_hash, metadata, payload, created_ms)
select id, {param int}, case when {param int} = 1 then 0 else {now} + {param int} end, '', {param text}, {param text}, {param text}, {param int}, {param text}, {param bytes}, {now} from {subscriptions} where name = ?`,
		state, state, max(delay, 0), r.topic, r.eventID, r.source, eventHash(source, msg.UUID), r.metadata, r.payload, subscription)
	if err == nil && n == 0 {
		err = unknownSubscription(subscription)
	}
	return err
}

func unknownSubscription(name string) error {
	return fmt.Errorf("%w: %q", transports.ErrNoSubscription, name)
}

// exceptionRecord is a delivery that was claimed.
type exceptionRecord struct {
	record
	rowID int64
}

// claimExceptions claims up to n deliveries that are due.
func (s *store) claimExceptions(ctx context.Context, g *group, owner string, n int) ([]exceptionRecord, error) {
	var records []exceptionRecord
	err := s.inTx(ctx, func(tx Tx) error {
		records = nil
		var ids []int64
		if err := s.dialect.writeFirst(ctx, s, tx); err != nil {
			return err
		}
		if err := s.dialect.byIndex(ctx, s, tx); err != nil {
			return err
		}
		size := 0
		err := s.query(ctx, tx, func(rows *sql.Rows) error {
			var id, bytes int64
			if err := rows.Scan(&id, &bytes); err != nil {
				return err
			}
			if size < loadBytes {
				ids = append(ids, id)
			}
			size += int(bytes)
			return nil
		}, `select id, octet_length(payload) from {deliveries} where subscription_id = ? and state = 0 and due_ms <= {now} order by due_ms, id limit ? {skip locked}`, g.id, n)
		if err != nil || len(ids) == 0 {
			return err
		}
		list := idList(ids)
		if _, err := s.exec(ctx, tx, `update {deliveries} set owner = ?, due_ms = {now} + ? where id in (`+list+`)`, owner, millis(s.cfg.Lease)); err != nil {
			return err
		}
		return s.query(ctx, tx, func(rows *sql.Rows) error {
			var r exceptionRecord
			err := rows.Scan(&r.rowID, &r.topic, &r.eventID, &r.metadata, &r.payload)
			records = append(records, r)
			return err
		}, `select id, topic, event_id, metadata, payload from {deliveries} where id in (`+list+`) order by id`)
	})
	return records, err
}

// groupID returns the id of a subscription.
func (s *store) groupID(ctx context.Context, name string) (int64, error) {
	return s.groupIDIn(ctx, s.db, name)
}

func (s *store) groupIDIn(ctx context.Context, q Tx, name string) (int64, error) {
	var id int64
	found, err := s.one(ctx, q, []any{&id}, `select id from {subscriptions} where name = ?`, name)
	if err == nil && !found {
		err = unknownSubscription(name)
	}
	return id, err
}

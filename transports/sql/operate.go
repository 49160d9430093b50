package sql

import (
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Requeue stores a copy of msg as an exception of one subscription, which is delivered
// after delay.
func (t *Transport) Requeue(ctx context.Context, subscription string, msg *message.Message, delay time.Duration) error {
	err := t.do(ctx, func(ctx context.Context) error {
		return t.store.exception(ctx, subscription, msg, stateWaiting, millis(delay))
	})
	t.Wake()
	return err
}

// RemoveSubscription deletes a subscription and all that waits in it. Consumers in other
// processes notice within a second.
func (t *Transport) RemoveSubscription(ctx context.Context, name string) error {
	err := t.do(ctx, func(ctx context.Context) error { return t.store.remove(ctx, name) })
	if err == nil {
		t.eachConsumer(func(c *consumer) {
			if c.group.name == name {
				c.stopIntake()
			}
		})
	}
	return err
}

// Ping asks the database for the state of the log. The error wraps [ErrUnseen] when what is
// published is not delivered.
func (t *Transport) Ping(ctx context.Context) error {
	return t.do(ctx, func(ctx context.Context) error {
		if _, _, err := t.store.passedIDs(ctx); err != nil {
			return err
		}
		return t.checkIDs(ctx)
	})
}

// Depth counts the messages of a subscription. What a process has claimed counts as in
// flight, delivered or not.
func (t *Transport) Depth(ctx context.Context, subscription string) (transports.Depth, error) {
	var d transports.Depth
	err := t.do(ctx, func(ctx context.Context) error {
		id, err := t.store.groupID(ctx, subscription)
		if err != nil {
			return err
		}
		return t.store.inTx(ctx, func(tx Tx) error {
			var err error
			d, err = t.store.depth(ctx, tx, id)
			return err
		})
	})
	return d, err
}

func (s *store) depth(ctx context.Context, tx Tx, id int64) (transports.Depth, error) {
	var d transports.Depth
	r, err := s.dialect.lockSubscription(ctx, s, tx, id) // so that nothing is claimed meanwhile
	if err != nil {
		return d, err
	}
	g := &group{id: id}
	if err := s.readBindings(ctx, tx, g, r.version); err != nil {
		return d, err
	}
	if d.Ready, err = s.countNew(ctx, tx, g, r); err != nil {
		return d, err
	}
	var claims []*claim
	var lapsed []bool
	var settled []map[int64]bool
	err = s.query(ctx, tx, func(rows *sql.Rows) error {
		c := &claim{}
		var late, free int
		var done []byte
		err := rows.Scan(&late, &c.first, &c.last, &c.bound, &done, &free)
		c.late = late == 1
		claims, lapsed, settled = append(claims, c), append(lapsed, free == 1), append(settled, settledPlaces(c.first, done))
		return err
	}, `select late, first, last, bound, settled, case when lease_ms <= {now} then 1 else 0 end from {claims} where subscription_id = ?`, id)
	if err != nil {
		return d, err
	}
	for i, c := range claims {
		if err := s.findAgain(ctx, tx, g, c, settled[i]); err != nil {
			return d, err
		}
		if lapsed[i] {
			d.Ready += c.left
		} else {
			d.InFlight += c.left
		}
	}
	var due, held int
	_, err = s.one(ctx, tx, []any{&due, &d.Delayed, &held, &d.Poisoned}, `
select coalesce(sum(case when state = 0 and due_ms <= {now} then 1 else 0 end), 0),
	coalesce(sum(case when state = 0 and due_ms > {now} and owner = '' then 1 else 0 end), 0),
	coalesce(sum(case when state = 0 and due_ms > {now} and owner <> '' then 1 else 0 end), 0),
	coalesce(sum(case when state = 1 then 1 else 0 end), 0)
from {deliveries} where subscription_id = ?`, id)
	d.Ready += due
	d.InFlight += held
	return d, err
}

// countNew counts what nobody has claimed, up to the newest message.
func (s *store) countNew(ctx context.Context, q Tx, g *group, r subscriptionRow) (int, error) {
	late := &claim{late: true, first: r.latePosition, bound: r.position}
	for more := true; more; {
		var err error
		if more, err = s.findLate(ctx, q, g, late, 1<<30); err != nil {
			return 0, err
		}
		late.first = late.last
	}
	n := late.left
	if !g.wildcard() {
		for _, b := range g.bindings {
			var count int
			query := `select count(*) from (` + s.dialect.topicRange() + s.andGapless() + `) t`
			if _, err := s.one(ctx, q, []any{&count}, query, s.dialect.topicArgs(b.pattern, max(r.position, b.since), math.MaxInt64)...); err != nil {
				return 0, err
			}
			n += count
		}
		return n, nil
	}
	err := s.query(ctx, q, func(rows *sql.Rows) error {
		var topic string
		var id int64
		if err := rows.Scan(&topic, &id); err != nil {
			return err
		}
		if g.takes(topic, id, 0) {
			n++
		}
		return nil
	}, `select m.topic, m.id from {messages} m where m.id > ?`+s.andGapless(), r.position)
	return n, err
}

func (s *store) andGapless() string {
	if condition := s.dialect.gapless(); condition != "" {
		return " and " + condition
	}
	return ""
}

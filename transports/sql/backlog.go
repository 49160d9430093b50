package sql

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/gotidings/tidings/transports"
)

// Backlog is what a durable subscription has still to handle.
type Backlog struct {
	Subscription string
	Depth        transports.Depth
	Age          time.Duration // of the oldest message that waits or is in flight, by the database's clock; 0 when there is none
}

// Backlogs returns the backlogs of the durable subscriptions whose names begin with
// prefix, by name. The age is that of the oldest message that the subscription has not
// passed, which may be one that it does not take while it passes over others.
func (t *Transport) Backlogs(ctx context.Context, prefix string) ([]Backlog, error) {
	var all []Backlog
	err := t.do(ctx, func(ctx context.Context) error {
		s := t.store
		ids := make(map[string]int64)
		err := s.query(ctx, s.db, func(rows *sql.Rows) error {
			var id int64
			var name string
			if err := rows.Scan(&id, &name); err != nil {
				return err
			}
			if strings.HasPrefix(name, prefix) {
				ids[name] = id
				all = append(all, Backlog{Subscription: name})
			}
			return nil
		}, `select id, name from {subscriptions} where ephemeral = 0 order by name`)
		if err != nil {
			return err
		}
		for i := range all {
			b := &all[i]
			id := ids[b.Subscription]
			if b.Depth, err = t.Depth(ctx, b.Subscription); err != nil {
				return err
			}
			if b.Depth.Ready+b.Depth.InFlight+b.Depth.Delayed == 0 {
				continue
			}
			if b.Age, err = s.age(ctx, id); err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

// age returns the age of the oldest message that a group has not settled.
func (s *store) age(ctx context.Context, id int64) (time.Duration, error) {
	var unclaimed, claimed, exceptional sql.NullInt64
	_, err := s.one(ctx, s.db, []any{&unclaimed, &claimed, &exceptional}, `
select {now} - (select m.published_ms from {messages} m where m.id > s.position order by m.id limit 1),
	{now} - (select m.published_ms from {messages} m where m.id > (select min(c.first) from {claims} c where c.subscription_id = s.id and c.late = 0) order by m.id limit 1),
	{now} - (select min(d.created_ms) from {deliveries} d where d.subscription_id = s.id and d.state = 0)
from {subscriptions} s where s.id = ?`, id)
	return time.Duration(max(unclaimed.Int64, claimed.Int64, exceptional.Int64, 0)) * time.Millisecond, err
}

package sql

import (
	"context"
	"database/sql"

	"github.com/gotidings/tidings/transports"
)

// Subscriptions lists the subscriptions of the log by name. An ephemeral one whose process
// was killed is listed until it is removed, some time after the end of its lease.
func (t *Transport) Subscriptions(ctx context.Context) ([]transports.SubscriptionInfo, error) {
	var list []transports.SubscriptionInfo
	err := t.do(ctx, func(ctx context.Context) error {
		list = []transports.SubscriptionInfo{}
		return t.store.query(ctx, t.store.db, func(rows *sql.Rows) error {
			var name string
			var pattern sql.NullString
			var ephemeral int
			if err := rows.Scan(&name, &ephemeral, &pattern); err != nil {
				return err
			}
			if n := len(list); n == 0 || list[n-1].Name != name {
				list = append(list, transports.SubscriptionInfo{Name: name, Topics: []string{}, Ephemeral: ephemeral == 1})
			}
			if pattern.Valid {
				last := &list[len(list)-1]
				last.Topics = append(last.Topics, pattern.String)
			}
			return nil
		}, `
select s.name, s.ephemeral, b.pattern from {subscriptions} s left join {bindings} b on b.subscription_id = s.id
order by s.name, b.pattern`)
	})
	return list, err
}

// Pending looks for events among the exceptions of a subscription: what was requeued and
// is not settled.
func (t *Transport) Pending(ctx context.Context, subscription string, keys ...transports.EventKey) ([]transports.EventKey, error) {
	var pending []transports.EventKey
	err := t.do(ctx, func(ctx context.Context) error {
		pending = nil
		id, err := t.store.groupID(ctx, subscription)
		if err != nil {
			return err
		}
		for _, key := range keys {
			var n int
			found, err := t.store.one(ctx, t.store.db, []any{&n},
				`select 1 from {deliveries} where subscription_id = ? and event_hash = ? and event_id = ? and source = ? and state = 0 limit 1`,
				id, eventHash(key.Source, key.ID), key.ID, clean(key.Source))
			if err != nil {
				return err
			}
			if found {
				pending = append(pending, key)
			}
		}
		return nil
	})
	return pending, err
}

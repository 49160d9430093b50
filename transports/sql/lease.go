package sql

import (
	"context"
	"database/sql"
	"time"
)

// activate makes owner the owner of an ordered group, if nobody has it. The lease always
// changes, also when it is taken twice in one millisecond: MySQL counts the rows that change.
func (s *store) activate(ctx context.Context, g *group, owner string) (bool, error) {
	n, err := s.exec(ctx, s.db, `
update {subscriptions} set owner = ?, lease_ms = {greatest}(lease_ms + 1, {now} + ?), seen_ms = {now} where id = ? and (owner = ? or lease_ms <= {now})`,
		owner, millis(s.cfg.Lease), g.id, owner)
	return n == 1, err
}

// deactivate gives an ordered group to the next.
func (s *store) deactivate(ctx context.Context, g *group, owner string) error {
	_, err := s.exec(ctx, s.db, `update {subscriptions} set owner = '', lease_ms = 0 where id = ? and owner = ? and ephemeral = 0`, g.id, owner)
	return err
}

// otherClaims reports whether there are claims of a group besides these: somebody else
// handles them, or nobody does since they were lost.
func (s *store) otherClaims(ctx context.Context, g *group, held []int64) (bool, error) {
	except := ""
	if len(held) > 0 {
		except = ` and id not in (` + idList(held) + `)`
	}
	return s.one(ctx, s.db, []any{new(int64)}, `select id from {claims} where subscription_id = ?`+except+` limit 1`, g.id)
}

// renew renews leases, and returns those of ids that are still the owner's.
func (s *store) renew(ctx context.Context, table string, ids []int64, owner string) (held map[int64]bool, err error) {
	lease := map[string]string{"claims": "lease_ms", "deliveries": "due_ms"}[table]
	held = make(map[int64]bool, len(ids))
	const most = 500
	for len(ids) > 0 {
		part := ids[:min(len(ids), most)]
		ids = ids[len(part):]
		where := ` where t.id in (` + idList(part) + `) and t.owner = ?`
		if _, err := s.exec(ctx, s.db, `update {`+table+`} {t by id} set `+lease+` = {now} + ?`+where, millis(s.cfg.Lease), owner); err != nil {
			return nil, err
		}
		err := s.query(ctx, s.db, func(rows *sql.Rows) error {
			var id int64
			err := rows.Scan(&id)
			held[id] = true
			return err
		}, `select id from {`+table+`} t`+where, owner)
		if err != nil {
			return nil, err
		}
	}
	return held, nil
}

// heartbeat renews every lease of the transport, and notes that its subscriptions are
// consumed. It returns the owners of the groups that are still there.
func (t *Transport) heartbeat(ctx context.Context) error {
	began := time.Now()
	var claims, exceptions, groups []int64
	t.eachConsumer(func(c *consumer) {
		c.mu.Lock()
		defer c.mu.Unlock()
		groups = append(groups, c.group.id)
		for _, cl := range c.claims {
			if cl.id != 0 {
				claims = append(claims, cl.id)
			}
		}
		for id := range c.exceptions {
			exceptions = append(exceptions, id)
		}
	})
	heldClaims, err := t.store.renew(ctx, "claims", claims, t.owner)
	if err != nil {
		return err
	}
	heldExceptions, err := t.store.renew(ctx, "deliveries", exceptions, t.owner)
	if err != nil {
		return err
	}
	if len(groups) > 0 {
		_, err := t.store.exec(ctx, t.store.db, `
update {subscriptions} set seen_ms = {now}, lease_ms = case when ephemeral = 1 or owner = ? then {now} + ? else lease_ms end
where id in (`+idList(groups)+`)`, t.owner, millis(t.store.cfg.Lease))
		if err != nil {
			return err
		}
	}
	asked := make(map[int64]bool, len(claims)+len(exceptions))
	for _, id := range append(claims, exceptions...) {
		asked[id] = true // the same number twice does not matter: both are looked up
	}
	t.eachConsumer(func(c *consumer) { c.renewed(began, asked, heldClaims, heldExceptions) })
	return t.writeCursors(ctx)
}

// renewed notes which leases were renewed.
func (c *consumer) renewed(began time.Time, asked, claims, exceptions map[int64]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cl := range append([]*claim(nil), c.claims...) {
		switch {
		case cl.id == 0 || !asked[cl.id] || cl.left == 0:
		case claims[cl.id]:
			cl.renewed = began
		default:
			c.lose(cl)
		}
	}
	for id, e := range c.exceptions {
		switch {
		case !asked[id]:
		case exceptions[id]:
			e.renewed = began
		default:
			e.lost = true
			delete(c.exceptions, id)
		}
	}
}

// writeCursors writes the positions of ephemeral subscriptions, below all that they have
// still to read.
func (t *Transport) writeCursors(ctx context.Context) error {
	var err error
	t.eachConsumer(func(c *consumer) {
		if !c.ephemeral || err != nil {
			return
		}
		c.mu.Lock()
		position, late := c.safe.position, c.safe.latePosition
		for _, cl := range c.claims {
			if cl.late {
				late = min(late, cl.first)
			} else {
				position, late = min(position, cl.first), min(late, cl.bound)
			}
		}
		c.mu.Unlock()
		_, err = t.store.exec(ctx, t.store.db, `update {subscriptions} set position = ?, late_position = ? where id = ?`, position, late, c.group.id)
	})
	return err
}

// watch looks whether the groups are still there, and still ours.
func (t *Transport) watch(ctx context.Context) error {
	var groups []int64
	t.eachConsumer(func(c *consumer) { groups = append(groups, c.group.id) })
	if len(groups) == 0 {
		return nil
	}
	owners := make(map[int64]string)
	err := t.store.query(ctx, t.store.db, func(rows *sql.Rows) error {
		var id int64
		var owner string
		err := rows.Scan(&id, &owner)
		owners[id] = owner
		return err
	}, `select id, owner from {subscriptions} where id in (`+idList(groups)+`)`)
	if err != nil {
		return err
	}
	asked := make(map[int64]bool)
	for _, id := range groups {
		asked[id] = true
	}
	t.eachConsumer(func(c *consumer) {
		if !asked[c.group.id] {
			return
		}
		owner, there := owners[c.group.id]
		if !there {
			c.stopIntake()
			return
		}
		c.mu.Lock()
		if c.ordered && c.active && owner != t.owner {
			c.active = false
		}
		c.mu.Unlock()
		if c.ordered {
			c.hint(0) // who stands by may have its turn
		}
	})
	return nil
}

package sql

import (
	"context"
	"database/sql"
	"math"
	"time"
)

// maintainInterval is how often a process prunes the log and looks at lags.
const maintainInterval = time.Minute

// maintain deletes what nobody needs any more, and warns of subscriptions that lag.
func (t *Transport) maintain(ctx context.Context) error {
	s := t.store
	t.eachConsumer(func(c *consumer) { c.hint(hintJump) })
	if err := s.expire(ctx); err != nil {
		return err
	}
	if err := s.pruneLate(ctx); err != nil {
		return err
	}
	for s.cfg.Retention > 0 {
		n, err := s.prune(ctx)
		if err != nil {
			return err
		}
		if n < pruneBatch {
			break
		}
	}
	return t.warnOfLags(ctx)
}

// expire removes ephemeral subscriptions whose processes are gone, and durable ones that
// nobody has consumed for Config.ExpireAfter.
func (s *store) expire(ctx context.Context) error {
	expireAfter := s.cfg.ExpireAfter
	if expireAfter == 0 {
		expireAfter = math.MaxInt64 / 4
	}
	type dead struct {
		id        int64
		name      string
		ephemeral bool
	}
	var groups []dead
	const condition = `(ephemeral = 1 and lease_ms <= {now} or ephemeral = 0 and seen_ms <= {now} - ?)`
	err := s.query(ctx, s.db, func(rows *sql.Rows) error {
		var d dead
		err := rows.Scan(&d.id, &d.name, &d.ephemeral)
		groups = append(groups, d)
		return err
	}, `select id, name, ephemeral = 1 from {subscriptions} where `+condition, millis(expireAfter))
	if err != nil {
		return err
	}
	for _, d := range groups {
		removed := false
		err := s.inTx(ctx, func(tx Tx) error {
			if err := s.dialect.writeFirst(ctx, s, tx); err != nil {
				return err
			}
			found, err := s.one(ctx, tx, []any{new(int64)}, `select id from {subscriptions} where id = ? and `+condition+` {lock}`, d.id, millis(expireAfter))
			if removed = found; err != nil || !found {
				return err
			}
			return s.removeGroup(ctx, tx, d.id)
		})
		if err != nil {
			return err
		}
		if removed && !d.ephemeral {
			s.log.Warn("a subscription that nobody has consumed for long is removed, with all that waited in it", "subscription", d.name, "after", s.cfg.ExpireAfter)
		}
	}
	return nil
}

// pruneBatch is how many messages one statement deletes, so that it locks little.
const pruneBatch = 1000

// pruneLate deletes late numbers that every position has passed, and that no open claim
// has to leave out.
func (s *store) pruneLate(ctx context.Context) error {
	var floor int64
	_, err := s.one(ctx, s.db, []any{&floor}, `
select {least}((select coalesce(min(late_position), 9223372036854775807) from {subscriptions}),
	(select coalesce(min(case when late = 1 then first else bound end), 9223372036854775807) from {claims}),
	(select coalesce(max(n), 0) - 1 from {late}))`)
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, s.db, `delete from {late} where n <= ?`, floor)
	return err
}

// prune deletes a batch of the oldest messages, if they are beyond the retention and
// nobody needs them: not a position, a claim, a gap or a late number that is still to
// come. It returns how many.
func (s *store) prune(ctx context.Context) (int, error) {
	var floor, oldest int64
	_, err := s.one(ctx, s.db, []any{&floor}, `
select {least}({frontier},
	(select coalesce(min(position), 9223372036854775807) from {subscriptions}),
	(select coalesce(min(case when late = 1 then 9223372036854775807 else first end), 9223372036854775807) from {claims}),
	(select coalesce(min(first) - 1, 9223372036854775807) from {gaps}),
	(select coalesce(min(id) - 1, 9223372036854775807) from {late}))`)
	if err != nil {
		return 0, err
	}
	// The ids are in the order of time, near enough: the batch ends at the first that is
	// too young.
	old := 0
	err = s.query(ctx, s.db, func(rows *sql.Rows) error {
		var id int64
		var young int
		if err := rows.Scan(&id, &young); err != nil || young == 1 {
			floor = min(floor, id-1)
			return err
		}
		if id <= floor {
			old++
			oldest = id
		}
		return nil
	}, `select id, case when published_ms > {now} - ? then 1 else 0 end from {messages} order by id limit ?`, millis(s.cfg.Retention), pruneBatch)
	if err != nil || old == 0 {
		return 0, err
	}
	_, err = s.exec(ctx, s.db, `delete from {messages} where id <= ?`, min(oldest, floor))
	return old, err
}

// warnOfLags logs which durable subscriptions have not taken messages older than
// Config.LagWarning, each once an hour.
func (t *Transport) warnOfLags(ctx context.Context) error {
	s := t.store
	if s.cfg.LagWarning < 0 {
		return nil
	}
	const again = time.Hour
	return s.query(ctx, s.db, func(rows *sql.Rows) error {
		var name string
		var lag int64
		if err := rows.Scan(&name, &lag); err != nil {
			return err
		}
		age := time.Duration(lag) * time.Millisecond
		if age > s.cfg.LagWarning && time.Since(t.poller.warned[name]) > again {
			if t.poller.warned == nil {
				t.poller.warned = make(map[string]time.Time)
			}
			t.poller.warned[name] = time.Now()
			s.log.Warn("a subscription lags; while it does, nothing that it has not taken is deleted", "subscription", name, "lag", age)
		}
		return nil
	}, `
select s.name, {now} - (select m.published_ms from {messages} m where m.id > s.position order by m.id limit 1) from {subscriptions} s
where s.ephemeral = 0 and exists (select 1 from {messages} m where m.id > s.position)`)
}

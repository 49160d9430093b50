package sql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"maps"
	"math"
	"time"
)

// maintainInterval is how often a process tries to maintain the log.
const maintainInterval = time.Minute

// maintainer deletes what nobody needs any more, and warns of subscriptions that lag. It works
// beside the poller, with one statement at a time, so that it delays no delivery, and in one
// process at a time.
type maintainer struct {
	transport *Transport
	warned    map[string]time.Time // of a lag, by subscription
}

func (m *maintainer) run(ctx context.Context) {
	for {
		if err := m.maintain(ctx); err != nil && ctx.Err() == nil {
			m.transport.store.log.Warn("maintenance of the log failed and is tried again in a minute", "error", err)
		}
		if !wait(ctx, maintainInterval) {
			return
		}
	}
}

// errElsewhere is the error of a step of the maintenance when another process does it.
var errElsewhere = errors.New("another process maintains the log")

// maintain does what is due, unless another process does so at the moment.
func (m *maintainer) maintain(ctx context.Context) (err error) {
	defer func() {
		if errors.Is(err, errElsewhere) {
			err = nil
		}
	}()
	if err := m.step(ctx, func(context.Context) error { return nil }); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := lastly()
		defer cancel()
		s := m.transport.store
		_, freeErr := s.exec(ctx, s.db, `update {maintenance} set owner = '', lease_ms = 0, turn = turn + 1 where owner = ?`, m.transport.owner)
		err = errors.Join(err, freeErr)
	}()
	s := m.transport.store
	if err := m.step(ctx, s.expire); err != nil {
		return err
	}
	if err := m.batches(ctx, s.pruneLate); err != nil {
		return err
	}
	if s.cfg.Retention > 0 {
		var pruned int64
		err := m.batches(ctx, func(ctx context.Context) (more bool, err error) {
			pruned, more, err = s.prune(ctx, pruned)
			return more, err
		})
		if err != nil {
			return err
		}
	}
	return m.step(ctx, m.warnOfLags)
}

// step does one thing for as long as this process is the one that maintains. The lease always
// changes, also for two steps of one millisecond: MySQL counts the rows that change.
func (m *maintainer) step(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	s, owner := m.transport.store, m.transport.owner
	n, err := s.exec(ctx, s.db, `update {maintenance} set owner = ?, lease_ms = {greatest}(lease_ms + 1, {now} + ?) where owner = ? or lease_ms <= {now}`, owner, millis(s.cfg.Lease), owner)
	switch {
	case err != nil:
		return err
	case n == 0:
		found, err := s.one(ctx, s.db, []any{new(int64)}, `select turn from {maintenance}`)
		if err == nil && !found { // a test suite has emptied all tables
			_, err = s.exec(ctx, s.db, `insert into {maintenance} (one, owner, lease_ms, turn) values (1 = 1, '', 0, 0)`)
		}
		return cmp.Or(err, errElsewhere)
	}
	return fn(ctx)
}

// batches deletes batch after batch. It rests for as long as each takes, so that the database
// has time for the others.
func (m *maintainer) batches(ctx context.Context, fn func(context.Context) (more bool, err error)) error {
	for more := true; more; {
		began := time.Now()
		err := m.step(ctx, func(ctx context.Context) (err error) {
			more, err = fn(ctx)
			return err
		})
		if err != nil {
			return err
		}
		if more && !wait(ctx, time.Since(began)) {
			return context.Cause(ctx)
		}
	}
	return nil
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

// pruneBatch is how many rows one statement deletes, so that it locks little.
const pruneBatch = 500

// pruneLate deletes a batch of late numbers that every position has passed, and that no open
// claim has to leave out. It reports whether there may be more.
func (s *store) pruneLate(ctx context.Context) (more bool, err error) {
	var floor int64
	_, err = s.one(ctx, s.db, []any{&floor}, `
select {least}((select coalesce(min(late_position), 9223372036854775807) from {subscriptions}),
	(select coalesce(min(case when late = 1 then first else bound end), 9223372036854775807) from {claims}),
	(select coalesce(max(n), 0) - 1 from {late}))`)
	if err != nil {
		return false, err
	}
	var last sql.NullInt64
	if _, err := s.one(ctx, s.db, []any{&last}, `select max(n) from (select n from {late} where n <= ? order by n limit ?) l`, floor, pruneBatch); err != nil || !last.Valid {
		return false, err
	}
	n, err := s.exec(ctx, s.db, `delete from {late} where n <= ?`, last.Int64)
	return n == pruneBatch, err
}

// prune deletes a batch of the oldest messages above after, if they are beyond the retention and
// nobody needs them: not a position, a claim, a gap or a late number that is still to
// come. It returns the last one, and whether there may be more. A batch begins after the one
// before, since an index may have entries of deleted rows for a long time.
func (s *store) prune(ctx context.Context, after int64) (last int64, more bool, err error) {
	var floor int64
	_, err = s.one(ctx, s.db, []any{&floor}, `
select {least}({frontier},
	(select coalesce(min(position), 9223372036854775807) from {subscriptions}),
	(select coalesce(min(case when late = 1 then 9223372036854775807 else first end), 9223372036854775807) from {claims}),
	(select coalesce(min(first) - 1, 9223372036854775807) from {gaps}),
	(select coalesce(min(id) - 1, 9223372036854775807) from {late}))`)
	if err != nil {
		return after, false, err
	}
	// The ids are in the order of time, near enough: the batch ends at the first that is
	// too young.
	old := 0
	last = after
	err = s.query(ctx, s.db, func(rows *sql.Rows) error {
		var id int64
		var young int
		if err := rows.Scan(&id, &young); err != nil || young == 1 {
			floor = min(floor, id-1)
			return err
		}
		if id <= floor {
			old++
			last = id
		}
		return nil
	}, `select id, case when published_ms > {now} - ? then 1 else 0 end from {messages} where id > ? order by id limit ?`, millis(s.cfg.Retention), after, pruneBatch)
	if err != nil || old == 0 {
		return after, false, err
	}
	err = s.inTx(ctx, func(tx Tx) error {
		if err := s.dialect.byIndex(ctx, s, tx); err != nil {
			return err
		}
		_, err := s.exec(ctx, tx, `delete from {messages} where id > ? and id <= ?`, after, last)
		return err
	})
	return last, old == pruneBatch, err
}

// warnOfLags logs which durable subscriptions have not taken messages older than
// Config.LagWarning, each once an hour.
func (m *maintainer) warnOfLags(ctx context.Context) error {
	s := m.transport.store
	if s.cfg.LagWarning < 0 {
		return nil
	}
	const again = time.Hour
	maps.DeleteFunc(m.warned, func(_ string, at time.Time) bool { return time.Since(at) > again })
	return s.query(ctx, s.db, func(rows *sql.Rows) error {
		var name string
		var lag sql.NullInt64
		if err := rows.Scan(&name, &lag); err != nil {
			return err
		}
		age := time.Duration(lag.Int64) * time.Millisecond
		if _, said := m.warned[name]; age > s.cfg.LagWarning && !said {
			m.warned[name] = time.Now()
			s.log.Warn("a subscription lags; while it does, nothing that it has not taken is deleted", "subscription", name, "lag", age)
		}
		return nil
	}, `
select s.name, {now} - (select m.published_ms from {messages} m where m.id > s.position order by m.id limit 1) from {subscriptions} s
where s.ephemeral = 0`)
}

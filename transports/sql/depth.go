package sql

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/gotidings/tidings/transports"
)

// depthLimit is how many messages of each kind are counted: of more, it is only known that
// they are at least that many.
const depthLimit = 100_000

// Depth counts the messages of a subscription, up to 100,000 of each kind. What a process has
// claimed counts as in flight, delivered or not. It locks nothing, so that nobody who works
// waits for it.
func (t *Transport) Depth(ctx context.Context, subscription string) (transports.Depth, error) {
	var d transports.Depth
	err := t.do(ctx, func(ctx context.Context) error {
		return t.store.inSnapshot(ctx, func(tx Tx) (err error) {
			id, err := t.store.groupIDIn(ctx, tx, subscription)
			if err != nil {
				return err
			}
			d, err = t.store.depth(ctx, tx, id, depthLimit)
			return err
		})
	})
	return d, err
}

// inSnapshot runs fn in a transaction whose statements all see the same, and lock nothing.
func (s *store) inSnapshot(ctx context.Context, fn func(Tx) error) (err error) {
	if s.cfg.Dialect == SQLite { // BeginTx may begin by locking, see sqliteDSN
		conn, err := s.db.Conn(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		if _, err := conn.ExecContext(ctx, "begin deferred"); err != nil {
			return err
		}
		defer func() {
			_, endErr := conn.ExecContext(context.WithoutCancel(ctx), "rollback")
			err = errors.Join(err, endErr)
		}()
		return fn(conn)
	}
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignore(tx.Rollback(), sql.ErrTxDone)) }()
	if err := s.dialect.byIndex(ctx, s, tx); err != nil {
		return err
	}
	return fn(tx)
}

// depth counts up to limit messages of each kind.
func (s *store) depth(ctx context.Context, tx Tx, id int64, limit int) (transports.Depth, error) {
	var d transports.Depth
	r, err := s.scanSubscription(ctx, tx, `
select version, position, late_position, (select coalesce(max(n), 0) from {late}), owner from {subscriptions} where id = ?`, id)
	if err != nil {
		return d, err
	}
	g := &group{id: id}
	if err := s.readBindings(ctx, tx, g, r.version); err != nil {
		return d, err
	}
	if d.Ready, d.AtLeast.Ready, err = s.countNew(ctx, tx, g, r, limit); err != nil {
		return d, err
	}
	if err := s.countClaimed(ctx, tx, g, &d, limit); err != nil {
		return d, err
	}
	var due, delayed, held int
	_, err = s.one(ctx, tx, []any{&due, &delayed, &held, &d.Poisoned}, `
select coalesce(sum(case when due_ms <= {now} then 1 else 0 end), 0),
	coalesce(sum(case when due_ms > {now} and owner = '' then 1 else 0 end), 0),
	coalesce(sum(case when due_ms > {now} and owner <> '' then 1 else 0 end), 0),
	(select count(*) from (select id from {deliveries} where subscription_id = ? and state = 1 and due_ms = 0 limit `+strconv.Itoa(limit)+`) p)
from (select due_ms, owner from {deliveries} where subscription_id = ? and state = 0 order by due_ms limit `+strconv.Itoa(limit)+`) d`, id, id)
	if err != nil {
		return d, err
	}
	rest := due+delayed+held == limit // then what is due later is not counted
	d.Ready, d.Delayed, d.InFlight = d.Ready+due, delayed, d.InFlight+held
	d.AtLeast.Ready = d.AtLeast.Ready || rest
	d.AtLeast.Delayed, d.AtLeast.Poisoned = rest, d.Poisoned == limit
	d.AtLeast.InFlight = d.AtLeast.InFlight || rest
	return d, nil
}

// countClaimed counts what is not settled of claims, and adds it to d.
func (s *store) countClaimed(ctx context.Context, tx Tx, g *group, d *transports.Depth, limit int) error {
	var claims []*claim
	var lapsed []bool
	var settled []map[int64]bool
	err := s.query(ctx, tx, func(rows *sql.Rows) error {
		c := &claim{}
		var late, free int
		var done []byte
		err := rows.Scan(&late, &c.first, &c.last, &c.bound, &done, &free)
		c.late = late == 1
		claims, lapsed, settled = append(claims, c), append(lapsed, free == 1), append(settled, settledPlaces(c.first, done))
		return err
	}, `select late, first, last, bound, settled, case when lease_ms <= {now} then 1 else 0 end from {claims} where subscription_id = ?`, g.id)
	if err != nil {
		return err
	}
	for i, c := range claims {
		if d.InFlight >= limit || d.AtLeast.Ready && d.Ready >= 2*limit {
			d.AtLeast.Ready, d.AtLeast.InFlight = true, true
			break
		}
		if err := s.findAgain(ctx, tx, g, c, settled[i]); err != nil {
			return err
		}
		if lapsed[i] {
			d.Ready += c.left
		} else {
			d.InFlight += c.left
		}
	}
	return nil
}

// countNew counts what nobody has claimed, up to the newest message, and reports whether there
// may be more. A group with wildcards looks at no more than limit messages, and the database
// counts them by topic.
func (s *store) countNew(ctx context.Context, q Tx, g *group, r subscriptionRow, limit int) (n int, atLeast bool, err error) {
	late := &claim{late: true, first: r.latePosition, bound: r.position}
	for more := true; more && !atLeast; {
		if more, err = s.findLate(ctx, q, g, late, 1<<30); err != nil {
			return 0, false, err
		}
		late.first = late.last
		atLeast = late.left >= limit
	}
	n = late.left
	if !g.wildcard() {
		for _, b := range g.bindings {
			var count int
			query := `select count(*) from (` + s.dialect.topicRange() + s.andGapless() + ` order by {in topic} limit ` + strconv.Itoa(limit) + `) t`
			if _, err := s.one(ctx, q, []any{&count}, query, s.dialect.topicArgs(b.pattern, max(r.position, b.since), math.MaxInt64)...); err != nil {
				return 0, false, err
			}
			n += count
			atLeast = atLeast || count == limit
		}
		return n, atLeast, nil
	}
	// What a binding takes begins at its since, which may be above the position: messages are
	// counted by the number of such places that they are above.
	var part strings.Builder
	var args []any
	part.WriteString("0")
	for _, b := range g.bindings {
		if b.since > r.position {
			part.WriteString(" + case when m.id > {param int} then 1 else 0 end")
			args = append(args, b.since)
		}
	}
	seen := 0
	err = s.query(ctx, q, func(rows *sql.Rows) error {
		var topic string
		var id int64 // one of them
		var count int
		if err := rows.Scan(&topic, &id, &count); err != nil {
			return err
		}
		seen += count
		if g.takes(topic, id, 0) {
			n += count
		}
		return nil
	}, `select topic, min(id), count(*) from (select m.topic, m.id, `+part.String()+` as part from {messages} m where m.id > ?`+s.andGapless()+
		` order by m.id limit `+strconv.Itoa(limit)+`) m group by topic, part`, append(args, r.position)...)
	return n, atLeast || seen == limit, err
}

func (s *store) andGapless() string {
	if condition := s.dialect.gapless(); condition != "" {
		return " and " + condition
	}
	return ""
}

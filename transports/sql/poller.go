package sql

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/gotidings/tidings/internal/dberr"
	"github.com/gotidings/tidings/transports"
)

// poller is the one in a process that looks for what is new, whatever the number of
// subscriptions: at once when this process has published, every busyPoll while others
// do, and seldom when nothing happens.
//
//	wake, timer ──► look ──► advance ──► hints to the consumers
//	                  └────► heartbeat, watch at their times
type poller struct {
	transport *Transport
	wakeup    chan struct{} // one token: something was published here

	seen      sight
	notified  sight         // what the consumers were told of
	interval  time.Duration // until the next look
	gapSince  time.Time     // when an id was first missing
	missing   int64         // that id
	heartbeat time.Time     // the last ones
	watched   time.Time
	jumped    time.Time // when positions were last moved although there was nothing
}

const (
	busyPoll      = 10 * time.Millisecond
	wakePause     = 5 * time.Millisecond // between looks while this process publishes all the time: each takes a few statements
	watchInterval = time.Second

	// gapGrace is how long a missing id holds the frontier back. Most publishers commit
	// within it, and what is behind a gap comes later by as much; beyond it their
	// messages are late, which costs a row each.
	gapGrace = 10 * time.Millisecond
)

// sight is what a look finds.
type sight struct {
	frontier, newest, late int64
	gaps                   bool
	due, scheduled, lapsed bool // there is some now
	nextDue                int64
}

func newPoller(t *Transport) *poller {
	return &poller{transport: t, wakeup: make(chan struct{}, 1), interval: busyPoll}
}

func (p *poller) wake() { token(p.wakeup) }

func (p *poller) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	now := time.Now()
	p.heartbeat, p.watched = now, now
	failing := false
	for {
		select {
		case <-p.wakeup:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		frontier := p.seen.frontier
		next, err := p.tick(ctx)
		if err != nil && ctx.Err() == nil {
			p.transport.store.log.Warn("the poller waits for the database", "error", err)
			next = maxRetry
		}
		if ctx.Err() == nil && (err != nil || failing) {
			p.transport.eachConsumer(func(c *consumer) { c.interrupted.looked(err) })
		}
		failing = err != nil
		if p.seen.frontier != frontier && next > 0 { // the next look can wait for more to come together
			wait(ctx, wakePause-time.Since(began))
		}
		timer.Reset(next)
	}
}

// tick looks once and returns after what time to look again.
func (p *poller) tick(parent context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(parent, fetchTimeout)
	defer cancel()
	t := p.transport
	s := t.store
	now := time.Now()
	if now.Sub(p.heartbeat) >= s.cfg.Lease/3 {
		if err := t.heartbeat(ctx); err != nil {
			return 0, err
		}
		p.heartbeat = now
	}
	if now.Sub(p.watched) >= watchInterval {
		if err := t.watch(ctx); err != nil {
			return 0, err
		}
		_ = t.checkIDs(ctx) // which logs it
		p.watched = now
		t.eachConsumer(func(c *consumer) { c.hint(hintStock) })
	}
	if now.Sub(p.jumped) >= maintainInterval {
		p.jumped = now
		t.eachConsumer(func(c *consumer) { c.hint(hintJump) })
	}

	saw, err := s.look(ctx)
	if err != nil {
		return 0, err
	}
	if saw.scheduled {
		more, err := s.publishDue(ctx)
		if err != nil {
			return 0, err
		}
		if more {
			p.wake()
		}
		if saw, err = s.look(ctx); err != nil {
			return 0, err
		}
	}
	var end tail
	if saw.newest > saw.frontier || saw.gaps {
		if end, err = p.advance(ctx, now, &saw); err != nil {
			return 0, err
		}
	}
	if err := p.notify(ctx, saw); err != nil {
		return 0, err
	}
	busy := saw.frontier != p.seen.frontier || saw.late != p.seen.late || end.more || end.missing != 0 || end.busy
	p.seen = saw
	switch {
	case end.more:
		p.interval = 0
	case end.missing != 0:
		p.interval = gapGrace / 4
	case busy:
		p.interval = busyPoll
	default:
		p.interval = min(2*max(p.interval, busyPoll), s.cfg.PollInterval)
	}
	next := p.interval
	if saw.nextDue >= 0 {
		next = min(next, time.Duration(saw.nextDue)*time.Millisecond)
	}
	return min(max(next, 0), s.cfg.Lease/3, watchInterval), nil
}

// advance moves the frontier. An id that is missing at first holds it back for a moment.
func (p *poller) advance(ctx context.Context, now time.Time, saw *sight) (tail, error) {
	s := p.transport.store
	pass := p.missing != 0 && p.missing == saw.frontier+1 && now.Sub(p.gapSince) >= gapGrace
	end, err := s.dialect.advance(ctx, s, pass)
	switch {
	case err != nil && dberr.Conflict(err):
		return tail{busy: true}, nil
	case err != nil || end.busy:
		return end, err
	}
	if end.missing != p.missing {
		p.missing, p.gapSince = end.missing, now
	}
	saw.frontier = end.frontier
	if saw.gaps { // some may be late now
		again, err := s.look(ctx)
		if err != nil {
			return end, err
		}
		saw.late, saw.gaps = again.late, again.gaps
	}
	return end, nil
}

// look reads where the log is, in one statement that locks nothing.
func (s *store) look(ctx context.Context) (sight, error) {
	var v sight
	var due, scheduled, lapsed sql.NullInt64
	var gaps int
	_, err := s.one(ctx, s.db, []any{&v.frontier, &v.newest, &gaps, &v.late, &due, &scheduled, &lapsed}, `
select {frontier}, (select coalesce(max(id), 0) from {messages}), (select count(*) from (select id from {gaps} limit 1) g), (select coalesce(max(n), 0) from {late}),
	(select min(due_ms) from {deliveries} where state = 0) - {now}, (select min(due_ms) from {scheduled}) - {now}, (select min(lease_ms) from {claims}) - {now}`)
	v.gaps = gaps > 0
	v.nextDue = -1
	for _, at := range []struct {
		in   sql.NullInt64
		past *bool
	}{{due, &v.due}, {scheduled, &v.scheduled}, {lapsed, &v.lapsed}} {
		switch {
		case !at.in.Valid:
		case at.in.Int64 <= 0:
			*at.past = true
		case v.nextDue < 0 || at.in.Int64 < v.nextDue:
			v.nextDue = at.in.Int64
		}
	}
	return v, err
}

// dueGroups finds the subscriptions with something that is due by the first entry of each in
// an index, so that it costs the same however much is due: a replay may have made it much.
const dueGroups = `
select s.id from {subscriptions} s where (select min(d.due_ms) from {deliveries} d where d.subscription_id = s.id and d.state = 0) <= {now}`

// notify tells consumers what there is for them.
func (p *poller) notify(ctx context.Context, saw sight) error {
	t := p.transport
	if saw.frontier != p.notified.frontier || saw.late != p.notified.late {
		takers, err := p.takers(ctx, saw)
		if err != nil {
			return err
		}
		p.notified = saw
		t.eachConsumer(func(c *consumer) {
			if takers == nil || takers[c.group.id] {
				c.hint(hintLog)
			}
		})
	}
	for _, look := range []struct {
		there bool
		query string
		hint  uint32
	}{
		{saw.due, dueGroups, hintDue},
		{saw.lapsed, `select distinct subscription_id from {claims} where lease_ms <= {now}`, hintLapsed},
	} {
		if !look.there {
			continue
		}
		groups := make(map[int64]bool)
		err := t.store.query(ctx, t.store.db, func(rows *sql.Rows) error {
			var id int64
			err := rows.Scan(&id)
			groups[id] = true
			return err
		}, look.query)
		if err != nil {
			return err
		}
		t.eachConsumer(func(c *consumer) {
			if groups[c.group.id] {
				c.hint(look.hint)
			}
		})
	}
	return nil
}

// A claim locks a row and takes several statements, even where there is nothing to claim. With
// more than fewTakers subscriptions, one question for all of them finds those that have
// something, unless there is so much that most will.
const (
	fewTakers  = 4
	askedAbout = 1000 // messages
)

// takers returns the subscriptions of this process that take some of what is new since they
// were last notified, nil for all of them.
func (p *poller) takers(ctx context.Context, saw sight) (map[int64]bool, error) {
	groups := make(map[int64]bool)
	p.transport.eachConsumer(func(c *consumer) { groups[c.group.id] = true })
	from := p.notified
	if len(groups) <= fewTakers || saw.frontier-from.frontier > askedAbout || saw.late-from.late > askedAbout {
		return nil, nil
	}
	s := p.transport.store
	var topics []string
	for _, part := range []struct {
		is    bool
		query string
		args  []any
	}{
		{saw.frontier != from.frontier, `select distinct topic from (select topic from {messages} where id > ? and id <= ? order by id limit ` + strconv.Itoa(askedAbout) + `) m`, []any{from.frontier, saw.frontier}},
		{saw.late != from.late, `select (select topic from {messages} where id = l.id) from {late} l where l.n > ? and l.n <= ?`, []any{from.late, saw.late}},
	} {
		if !part.is {
			continue
		}
		err := s.query(ctx, s.db, func(rows *sql.Rows) error {
			var topic sql.NullString
			err := rows.Scan(&topic)
			topics = append(topics, topic.String)
			return err
		}, part.query, part.args...)
		if err != nil {
			return nil, err
		}
	}
	takers := make(map[int64]bool)
	err := s.query(ctx, s.db, func(rows *sql.Rows) error {
		var id int64
		var pattern string
		err := rows.Scan(&id, &pattern)
		if !takers[id] && slices.ContainsFunc(topics, func(topic string) bool { return transports.Match(pattern, topic) }) {
			takers[id] = true
		}
		return err
	}, `select subscription_id, pattern from {bindings} where subscription_id in (`+idList(slices.Collect(maps.Keys(groups)))+`)`)
	return takers, err
}

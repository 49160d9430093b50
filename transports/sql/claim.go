package sql

import (
	"context"
	"database/sql"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// claim is a part of the log that one process handles: of a range of ids, or of late
// ones, what its group takes and has not settled yet.
//
// In the database it is a row; what of it is settled is there as well, up to a moment
// ago, so that who takes it over does not repeat that.
type claim struct {
	id          int64
	late        bool
	first, last int64 // ids above first and up to last; of a late claim the numbers of late ones
	bound       int64 // the last late one that was known; of a late claim the group's position

	places  []int64 // ids, or numbers of late ones, ascending
	ids     []int64 // the ids of the messages
	settled []bool
	left    int // how many are not settled

	// Guarded by the consumer.
	renewed time.Time // when the lease began
	loaded  int       // how many of ids have been read
	changed bool      // since it was written
	cutting bool      // its end is being given back, and nothing else may be written
	written time.Time // its progress
	lost    bool      // to another process, after the lease had ended
}

func (c *claim) add(place, id int64) {
	c.places = append(c.places, place)
	c.ids = append(c.ids, id)
	c.settled = append(c.settled, false)
	c.left++
}

func (c *claim) settle(i int) {
	if !c.settled[i] {
		c.settled[i] = true
		c.left--
		c.changed = true
	}
}

// place is where the claim is in the log, as takeOver sorts them.
func (c *claim) place() int64 {
	if c.late {
		return c.bound
	}
	return c.first
}

// progress returns what is to be written of a claim: the place up to which all is
// settled, and what is settled above that, as the distances between the places.
func (c *claim) progress() (first int64, settled []byte) {
	first = c.first
	i := 0
	for i < len(c.places) && c.settled[i] {
		first = c.places[i]
		i++
	}
	at := first
	for ; i < len(c.places); i++ {
		if c.settled[i] {
			settled = binary.AppendUvarint(settled, uint64(c.places[i]-at)) //nolint:gosec // they ascend
			at = c.places[i]
		}
	}
	return first, settled
}

// settledPlaces is the reverse of progress.
func settledPlaces(first int64, settled []byte) map[int64]bool {
	places := make(map[int64]bool)
	for len(settled) > 0 {
		d, n := binary.Uvarint(settled)
		if n <= 0 {
			break
		}
		settled = settled[n:]
		first += int64(d) //nolint:gosec // a difference of two ids
		places[first] = true
	}
	return places
}

// jumpDistance is how far a position may stay behind the frontier when nothing is there
// for its group: moving it is a write.
const jumpDistance = 1000

// claimed is what a claim has found.
type claimed struct {
	claim *claim // nil when there was nothing
	more  bool   // there may be more
}

// claimLog claims up to n messages that nobody has claimed. owner must be the group's
// owner when it is ordered. With jump, a position that finds nothing is always moved.
func (s *store) claimLog(ctx context.Context, g *group, ordered bool, owner string, n int, jump bool) (claimed, error) {
	var result claimed
	err := s.inTx(ctx, func(tx Tx) error {
		r, err := s.dialect.lockSubscription(ctx, s, tx, g.id)
		if err != nil {
			return err
		}
		if ordered && r.owner != owner {
			return errStandby
		}
		old := r
		if result, err = s.findNext(ctx, tx, g, &r, n); err != nil {
			return err
		}
		if c := result.claim; c != nil {
			c.id = rand.Int64()
			_, err := s.exec(ctx, tx, `
insert into {claims} (id, subscription_id, late, first, last, bound, settled, owner, lease_ms)
values (?, ?, ?, ?, ?, ?, ?, ?, {now} + ?)`, c.id, g.id, bit(c.late), c.first, c.last, c.bound, []byte{}, owner, millis(s.cfg.Lease))
			if err != nil {
				return err
			}
		} else if !result.more && r.latePosition == old.latePosition && (r.position == old.position || !jump && r.position-old.position < jumpDistance) {
			return nil
		}
		_, err = s.exec(ctx, tx, `update {subscriptions} set position = ?, late_position = ? where id = ?`, r.position, r.latePosition, g.id)
		return err
	})
	return result, err
}

// peekLog is claimLog for an ephemeral subscription, which shares with nobody: its
// position is in the process, and is written only now and then, for the retention.
func (s *store) peekLog(ctx context.Context, g *group, cursor *subscriptionRow, n int) (claimed, error) {
	var result claimed
	err := s.inTx(ctx, func(tx Tx) error {
		r, err := s.dialect.lockSubscription(ctx, s, tx, g.id)
		if err != nil {
			return err
		}
		r.position, r.latePosition = cursor.position, cursor.latePosition
		if result, err = s.findNext(ctx, tx, g, &r, n); err == nil {
			*cursor = r
		}
		return err
	})
	return result, err
}

// findNext finds the next up to n messages of a group and moves the positions in r.
//
// First come late ones with ids up to the position. Once there are none left, the next
// range of ids follows, in which late ones are in their places. So events of which one
// was published after the other had been committed come in that order: the one that came
// first is below the position or in the range, and is known as late by then.
//
// The range and the newest late arrival are read in one snapshot. If there is a newer late
// arrival than the last one that was looked at, the frontier was moved in between, and the
// range may have events that come after it: it is dropped, and the late arrivals come first.
func (s *store) findNext(ctx context.Context, q Tx, g *group, r *subscriptionRow, n int) (claimed, error) {
	if err := s.readBindings(ctx, q, g, r.version); err != nil {
		return claimed{}, err
	}
	for {
		if r.maxLate > r.latePosition {
			c := &claim{late: true, first: r.latePosition, bound: r.position}
			more, err := s.findLate(ctx, q, g, c, n)
			if err != nil {
				return claimed{}, err
			}
			r.latePosition = c.last
			switch {
			case c.left > 0:
				return claimed{claim: c, more: true}, nil
			case more:
				return claimed{more: true}, nil
			}
		}
		query, args := s.find(g, r.position, -1, r.latePosition, n)
		c := &claim{first: r.position, last: r.position, bound: r.latePosition}
		got, err := s.findInto(ctx, q, c, nil, query, args)
		switch {
		case err != nil:
			return claimed{}, err
		case got.maxLate > r.latePosition:
			r.maxLate = got.maxLate
			continue
		}
		var result claimed
		switch window := r.position + scanWindow; {
		case got.messages == n:
			r.position, result.more = c.last, true
		case g.wildcard() && window < got.frontier:
			r.position, result.more = window, true
		default:
			r.position = max(r.position, got.frontier)
		}
		if c.left > 0 {
			result.claim = c
		}
		return result, nil
	}
}

// found is what find finds besides the messages of a claim, in one snapshot.
type found struct {
	frontier, maxLate int64
	messages          int // those that are left out included
}

// findInto adds to c what find finds, but what is settled already.
func (s *store) findInto(ctx context.Context, q Tx, c *claim, settled map[int64]bool, query string, args []any) (found, error) {
	var f found
	err := s.query(ctx, q, func(rows *sql.Rows) error {
		var kind int
		var id int64
		if err := rows.Scan(&kind, &id); err != nil {
			return err
		}
		switch kind {
		case foundFrontier:
			f.frontier = id
			return nil
		case foundMaxLate:
			f.maxLate = id
			return nil
		}
		f.messages++
		c.last = max(c.last, id)
		if kind == foundMessage && !settled[id] {
			c.add(id, id)
		}
		return nil
	}, query, args...)
	return f, err
}

// lateWindow is how many late messages a claim looks through.
const lateWindow = 1000

// findLate adds to c up to n late messages above c.first with an id up to c.bound; those
// above the position are found in their place. It sets c.last, and reports whether there are more.
func (s *store) findLate(ctx context.Context, q Tx, g *group, c *claim, n int) (more bool, err error) {
	seen := 0
	c.last = c.first
	err = s.query(ctx, q, func(rows *sql.Rows) error {
		if c.left == n {
			more = true
			return nil
		}
		var place, id int64
		var topic sql.NullString
		if err := rows.Scan(&place, &id, &topic); err != nil {
			return err
		}
		seen++
		c.last = place
		if id <= c.bound && g.takes(topic.String, id, place) {
			c.add(place, id)
		}
		return nil
	}, `select l.n, l.id, (select m.topic from {messages} m where m.id = l.id) from {late} l where l.n > ? order by l.n limit ?`, c.first, lateWindow)
	return more || seen == lateWindow, err
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// takeOver takes a claim whose lease has ended or that was given back, the first one in
// the order of the log, or nil when there is none.
//
// The leases of one owner end one after the other, and a heartbeat may have renewed an earlier
// claim and not a later one. So an ordered subscription takes only the first claim of those
// that it does not hold.
func (s *store) takeOver(ctx context.Context, g *group, ordered bool, held []int64, owner string) (*claim, error) {
	var c *claim
	which := ` and lease_ms <= {now}`
	if ordered {
		which = ``
		if len(held) > 0 {
			which = ` and id not in (` + idList(held) + `)`
		}
	}
	err := s.inTx(ctx, func(tx Tx) error {
		c = nil
		r, err := s.dialect.lockSubscription(ctx, s, tx, g.id)
		if err != nil {
			return err
		}
		if err := s.readBindings(ctx, tx, g, r.version); err != nil {
			return err
		}
		var taken claim
		var late, lapsed int
		var done []byte
		found, err := s.one(ctx, tx, []any{&taken.id, &late, &taken.first, &taken.last, &taken.bound, &done, &lapsed}, `
select id, late, first, last, bound, settled, case when lease_ms <= {now} then 1 else 0 end from {claims} where subscription_id = ?`+which+`
order by case when late = 1 then bound else first end, late desc limit 1`, g.id)
		if err != nil || !found || lapsed == 0 {
			return err
		}
		c, taken.late = &taken, late == 1
		if err := s.findAgain(ctx, tx, g, c, settledPlaces(taken.first, done)); err != nil {
			return err
		}
		if c.left == 0 {
			_, err = s.exec(ctx, tx, `delete from {claims} where id = ? and lease_ms <= {now}`, c.id)
			return err
		}
		// Its owner may have come back since it was read.
		n, err := s.exec(ctx, tx, `update {claims} set owner = ?, lease_ms = {now} + ? where id = ? and lease_ms <= {now}`, owner, millis(s.cfg.Lease), c.id)
		if n == 0 {
			c = nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// findAgain finds the messages of a claim that are not settled.
func (s *store) findAgain(ctx context.Context, tx Tx, g *group, c *claim, settled map[int64]bool) error {
	last := c.last
	if !c.late {
		query, args := s.find(g, c.first, last, c.bound, 1<<30)
		_, err := s.findInto(ctx, tx, c, settled, query, args)
		c.last = last
		return err
	}
	defer func() { c.last = last }()
	return s.query(ctx, tx, func(rows *sql.Rows) error {
		var place, id int64
		var topic sql.NullString
		if err := rows.Scan(&place, &id, &topic); err != nil {
			return err
		}
		if id <= c.bound && !settled[place] && g.takes(topic.String, id, place) {
			c.add(place, id)
		}
		return nil
	}, `select l.n, l.id, (select m.topic from {messages} m where m.id = l.id) from {late} l where l.n > ? and l.n <= ? order by l.n`, c.first, last)
}

// record is a message that was read.
type record struct {
	id             int64
	topic, eventID string
	metadata       string
	payload        []byte
}

// loadBytes is how much of payloads and metadata is read at a time, or one message.
const loadBytes = 8 << 20

// load reads the first of the messages of these ids, as many as loadBytes allows, and
// returns how many of ids it has dealt with: one that is not there any more is passed over.
func (s *store) load(ctx context.Context, ids []int64) (records []record, n int, err error) {
	const most = 1000                                              // rows of one statement
	for n < min(len(ids), most) && (n == 0 || ids[n] > ids[n-1]) { // late ones are in another order
		n++
	}
	size := 0
	among, args := s.dialect.among(ids[:n])
	err = s.query(ctx, s.db, func(rows *sql.Rows) error {
		var r record
		if err := rows.Scan(&r.id, &r.topic, &r.eventID, &r.metadata, &r.payload); err != nil {
			return err
		}
		size += len(r.payload) + len(r.metadata)
		records = append(records, r)
		return nil
	}, `
select x.id, x.topic, x.event_id, x.metadata, x.payload from (
	select m.id, m.topic, m.event_id, m.metadata, m.payload, sum(octet_length(m.payload) + octet_length(m.metadata)) over (order by m.id) as total
	from `+among+`) x
where x.total - octet_length(x.payload) - octet_length(x.metadata) < ? order by x.id`, append(args, loadBytes)...)
	if size >= loadBytes { // it may have been cut off here
		for n > 1 && ids[n-1] > records[len(records)-1].id {
			n--
		}
	}
	return records, n, err
}

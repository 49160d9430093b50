package sql

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Log reads what was published through a transport, for audits: package eventstore is made
// of it. Nothing of it changes a message. Its methods may be called concurrently, and
// return [transports.ErrClosed] after the transport was closed.
type Log struct{ t *Transport }

// Log returns the log of the transport.
func (t *Transport) Log() *Log { return &Log{t} }

// Entry is a message of the log.
type Entry struct {
	ID        int64 // its place
	Topic     string
	Message   *message.Message
	Published time.Time // by the database's clock, to the millisecond

	source, key, metadata string // as they are in the row
}

// AppendBinary appends all columns of the row to b, each with its length, so that no two
// rows look alike.
func (e *Entry) AppendBinary(b []byte) ([]byte, error) {
	b = binary.BigEndian.AppendUint64(b, uint64(e.ID))                    //nolint:gosec // it is positive
	b = binary.BigEndian.AppendUint64(b, uint64(e.Published.UnixMilli())) //nolint:gosec // any 64 bits will do
	for _, s := range [...]string{e.Topic, e.Message.UUID, e.source, e.key, e.metadata, string(e.Message.Payload)} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b, nil
}

// DB returns the database.
func (l *Log) DB() *sql.DB { return l.t.store.db }

// Write replaces the marks of a query: ? by parameters, {now} by the database's clock in
// milliseconds since 1970, {messages} and other names of tables by what they are called.
func (l *Log) Write(query string) string { return l.t.store.write(query) }

// Migrates reports whether tables may be made, which [Config.NoMigrate] forbids.
func (l *Log) Migrates() bool { return !l.t.store.cfg.NoMigrate }

// Retention returns [Config.Retention].
func (l *Log) Retention() time.Duration { return l.t.store.cfg.Retention }

// InTx runs fn in a transaction that writes, and again when others have disturbed it.
func (l *Log) InTx(ctx context.Context, fn func(tx Tx) error) error {
	return l.t.do(ctx, func(ctx context.Context) error {
		s := l.t.store
		return s.inTx(ctx, func(tx Tx) error {
			if err := s.dialect.writeFirst(ctx, s, tx); err != nil {
				return err
			}
			return fn(tx)
		})
	})
}

// Migrating runs fn while no other process migrates the tables of the log.
func (l *Log) Migrating(ctx context.Context, fn func(tx Tx) error) error {
	return l.t.do(ctx, func(ctx context.Context) error { return l.t.store.dialect.migrate(ctx, l.t.store, fn) })
}

// Range is a part of the log.
type Range struct {
	Topics []string // patterns; none means all
	After  int64    // ids above it
	UpTo   int64    // and up to it; 0 means to the end
	Newest bool     // the newest first
	Limit  int      // at most so many
}

// Read returns what of a range is committed, in the order of the ids. It may be fewer than
// asked for when they are large. scanned is the last place that was looked at: what follows
// begins there. more is false when the range was looked at to its end.
func (l *Log) Read(ctx context.Context, r Range) (entries []Entry, scanned int64, more bool, err error) {
	err = l.t.do(ctx, func(ctx context.Context) (err error) {
		entries, scanned, more, err = l.t.store.read(ctx, r)
		return err
	})
	return entries, scanned, more, err
}

func (s *store) read(ctx context.Context, r Range) (entries []Entry, scanned int64, more bool, err error) {
	var b strings.Builder
	var args []any
	b.WriteString(`select m.id, m.topic from {messages} m where m.id > ?`)
	args = append(args, r.After)
	if r.UpTo > 0 {
		b.WriteString(` and m.id <= ?`)
		args = append(args, r.UpTo)
	}
	if len(r.Topics) > 0 {
		b.WriteString(` and (`)
		for i, pattern := range r.Topics {
			if i > 0 {
				b.WriteString(` or `)
			}
			if transports.HasWildcard(pattern) {
				b.WriteString(`{topic text} like ? escape '!'`)
				args = append(args, like(pattern))
			} else {
				b.WriteString(`m.topic = ?`)
				args = append(args, pattern)
			}
		}
		b.WriteString(`)`)
	}
	b.WriteString(` order by m.id`)
	if r.Newest {
		b.WriteString(` desc`)
	}
	b.WriteString(` limit ?`)
	args = append(args, r.Limit)
	var ids []int64
	found := 0
	err = s.query(ctx, s.db, func(rows *sql.Rows) error {
		var id int64
		var topic string
		if err := rows.Scan(&id, &topic); err != nil {
			return err
		}
		found++
		scanned = id
		if len(r.Topics) == 0 || slices.ContainsFunc(r.Topics, func(p string) bool { return transports.Match(p, topic) }) {
			ids = append(ids, id)
		}
		return nil
	}, b.String(), args...)
	if err != nil {
		return nil, 0, false, err
	}
	more = found == r.Limit
	entries, n, err := s.loadEntries(ctx, s.db, ids, r.Newest)
	if n < len(ids) {
		scanned, more = ids[n-1], true
	}
	return entries, scanned, more, err
}

// Entries returns the messages with these ids that are there, in the order of the ids, as
// many as fit into 8 MiB; n is how many of ids were looked for. ids ascend, or descend with
// newest.
func (l *Log) Entries(ctx context.Context, ids []int64, newest bool) (entries []Entry, n int, err error) {
	err = l.t.do(ctx, func(ctx context.Context) (err error) {
		entries, n, err = l.t.store.loadEntries(ctx, l.t.store.db, ids, newest)
		return err
	})
	return entries, n, err
}

// loadEntries reads the first of the messages of ids, as many as loadBytes allows, and
// returns how many of ids it has dealt with.
func (s *store) loadEntries(ctx context.Context, q Tx, ids []int64, newest bool) (entries []Entry, n int, err error) {
	const most = 1000 // rows of one statement
	if n = min(len(ids), most); n == 0 {
		return nil, 0, nil
	}
	direction := ""
	if newest {
		direction = " desc"
	}
	among, args := s.dialect.among(ids[:n])
	size := 0
	err = s.query(ctx, q, func(rows *sql.Rows) error {
		var e Entry
		var eventID string
		var payload []byte
		var published int64
		if err := rows.Scan(&e.ID, &e.Topic, &eventID, &e.source, &e.key, &e.metadata, &payload, &published); err != nil {
			return err
		}
		size += len(payload) + len(e.metadata)
		md, err := parseMetadata(e.metadata)
		if err != nil { // somebody has changed it: the entry is shown without
			md = make(map[string]string)
		}
		e.Message = message.NewMessage(eventID, payload)
		e.Message.Metadata = md
		transports.SetTopic(e.Message, e.Topic)
		e.Published = time.UnixMilli(published).UTC()
		entries = append(entries, e)
		return nil
	}, `
select x.id, x.topic, x.event_id, x.source, x.partition_key, x.metadata, x.payload, x.published_ms from (
	select m.id, m.topic, m.event_id, m.source, m.partition_key, m.metadata, m.payload, m.published_ms,
		sum(octet_length(m.payload) + octet_length(m.metadata)) over (order by m.id`+direction+`) as total
	from `+among+`) x
where x.total - octet_length(x.payload) - octet_length(x.metadata) < ? order by x.id`+direction, append(args, loadBytes)...)
	if err != nil {
		return nil, 0, err
	}
	if size >= loadBytes { // it may have been cut off here
		last := entries[len(entries)-1].ID
		n = slices.Index(ids, last) + 1
	}
	return entries, n, nil
}

// IDs returns the first limit ids above after and up to last.
func (l *Log) IDs(ctx context.Context, after, last int64, limit int) (ids []int64, err error) {
	err = l.t.do(ctx, func(ctx context.Context) error {
		s := l.t.store
		return s.query(ctx, s.db, func(rows *sql.Rows) error {
			var id int64
			err := rows.Scan(&id)
			ids = append(ids, id)
			return err
		}, `select id from {messages} where id > ? and id <= ? order by id limit ?`, after, last, limit)
	})
	return ids, err
}

// Bounds returns the first and the last id that is there, 0 and 0 when there is none.
func (l *Log) Bounds(ctx context.Context) (first, last int64, err error) {
	err = l.t.do(ctx, func(ctx context.Context) error {
		s := l.t.store
		_, err := s.one(ctx, s.db, []any{&first, &last}, `select coalesce(min(id), 0), coalesce(max(id), 0) from {messages}`)
		return err
	})
	return first, last, err
}

// Settled returns the id below which nothing can appear any more, since no transaction is
// open that may still commit it, and the last id that anything is known of. They are the
// same unless a publisher's transaction is open.
func (l *Log) Settled(ctx context.Context) (settled, frontier int64, err error) {
	err = l.t.do(ctx, func(ctx context.Context) error {
		s := l.t.store
		if err := s.catchUp(ctx); err != nil {
			return err
		}
		if _, err := s.one(ctx, s.db, []any{&frontier}, `select {frontier}`); err != nil {
			return err
		}
		settled = frontier
		if s.dialect.gapless() == "" {
			return nil
		}
		var gap sql.NullInt64
		_, err := s.one(ctx, s.db, []any{&gap}, `select min(first) from {gaps}`)
		if gap.Valid && gap.Int64 <= settled {
			settled = gap.Int64 - 1
		}
		return err
	})
	return settled, frontier, err
}

// Unknown reports whether an id belongs to a gap, in which a message may still appear, or
// is one that appeared there and that the follower of this name has not had yet.
func (l *Log) Unknown(ctx context.Context, follower string, id int64) (unknown bool, err error) {
	s := l.t.store
	if s.dialect.gapless() == "" {
		return false, nil
	}
	err = l.t.do(ctx, func(ctx context.Context) error {
		_, err := s.one(ctx, s.db, []any{&unknown}, `
select (select count(*) from {gaps} where first <= ? and last >= ?) > 0
	or (select count(*) from {late} l where l.id = ? and l.n > (select late_position from {subscriptions} where name = ?)) > 0`, id, id, id, follower)
		return err
	})
	return unknown, err
}

// IDAt returns the first id, near enough, of what was published at a time or later: clocks
// and transactions overlap, so look at what is before it as well.
func (l *Log) IDAt(ctx context.Context, at time.Time) (int64, error) {
	first, last, err := l.Bounds(ctx)
	if err != nil {
		return 0, err
	}
	ms := at.UnixMilli()
	low, high := first, last+1 // the id that is looked for is in [low, high]
	err = l.t.do(ctx, func(ctx context.Context) error {
		s := l.t.store
		for low < high {
			middle := low + (high-low)/2
			var id, published int64
			found, err := s.one(ctx, s.db, []any{&id, &published}, `select id, published_ms from {messages} where id >= ? order by id limit 1`, middle)
			switch {
			case err != nil:
				return err
			case !found || published >= ms:
				high = middle
			default:
				low = id + 1
			}
		}
		return nil
	})
	return low, err
}

// Writer is [Log.Write] without a database. cfg.Dialect is required.
func Writer(cfg Config) (func(query string) string, error) {
	if cfg.Dialect == "" {
		return nil, fmt.Errorf("the field Dialect is empty; it takes %q, %q or %q", Postgres, MySQL, SQLite)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return writer(dialectOf(cfg.Dialect), cfg.Schema, cfg.Prefix), nil
}

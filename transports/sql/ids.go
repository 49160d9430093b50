package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gotidings/tidings/internal/dberr"
)

// ErrUnseen is wrapped by an error of [New], Publish and Ping that says why what is published
// now would never be delivered, and what to do. The ids of new messages are not above those
// that the subscriptions have passed, since somebody has set them back, has restored a part
// of the tables, or has emptied some of them.
var ErrUnseen = errors.New("what is published would never be delivered")

// passedIDs reads how far the log has passed its ids, and whether its row is there. It is in
// columns, since the databases differ in how they compare values of a row.
func (s *store) passedIDs(ctx context.Context) (passed, newest int64, err error) {
	var frontier sql.NullInt64
	var position, since int64
	_, err = s.one(ctx, s.db, []any{&frontier, &newest, &position, &since}, `
select {frontier}, (select coalesce(max(id), 0) from {messages}), (select coalesce(max(position), 0) from {subscriptions}),
	(select coalesce(max(since), 0) from {bindings})`)
	if err == nil && !frontier.Valid {
		err = s.emptied("log")
	}
	return max(frontier.Int64, newest, position, since), newest, err
}

// emptied is the error for a table that has lost the rows that were made with it.
func (s *store) emptied(table string) error {
	return fmt.Errorf("%w: the table %s has lost its rows, as when a test suite empties every table; "+
		"drop all tables of the prefix %q to have them made again, and leave them out of what you empty", ErrUnseen, s.write("{"+table+"}"), s.cfg.Prefix)
}

// checkIDs looks at the sequence. One that keeps numbers for each session gives some of them
// out later, when they have been passed.
func (postgres) checkIDs(ctx context.Context, s *store) error {
	passed, _, err := s.passedIDs(ctx) // before the sequence is read, which others move on
	if err != nil {
		return err
	}
	var name string
	var cache, increment int64
	var allowed bool
	var last sql.NullInt64
	table := s.write("{messages}")
	found, err := s.one(ctx, s.db, []any{&name, &cache, &increment, &allowed, &last}, `
select q.seqrelid::regclass::text, q.seqcache, q.seqincrement, a.allowed, case when a.allowed then pg_sequence_last_value(q.seqrelid) end
from pg_sequence q, lateral (select has_sequence_privilege(q.seqrelid, 'USAGE, SELECT') as allowed) a
where q.seqrelid = pg_get_serial_sequence(?, 'id')::regclass`, table)
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("the column id of %s has no sequence; the table was not made by this library", table)
	case !allowed: // PostgreSQL 18 says NULL for its value, as if it had not been used
		return fmt.Errorf("permission denied for sequence %s; GRANT SELECT ON SEQUENCE %[1]s TO the database's user", name)
	case cache != 1:
		return fmt.Errorf("%w: the sequence %s has CACHE %d, so that a session uses numbers which others have passed; "+
			"ALTER SEQUENCE %[2]s CACHE 1, and connect every session again that has published", ErrUnseen, name, cache)
	case increment != 1:
		return fmt.Errorf("%w: the sequence %s has INCREMENT %d; ALTER SEQUENCE %[2]s INCREMENT 1", ErrUnseen, name, increment)
	}
	if last.Int64 >= passed {
		return nil
	}
	return fmt.Errorf("%w: the sequence %s is at %d, and the ids up to %d have been passed; SELECT setval('%[2]s', %[4]d)", ErrUnseen, name, last.Int64, passed)
}

// checkIDs looks at the counter of the table, which is above the newest message in any case.
func (d mysql) checkIDs(ctx context.Context, s *store) error {
	var step, gates int64
	if _, err := s.one(ctx, s.db, []any{&step, &gates}, `select greatest(@@auto_increment_increment, @@global.auto_increment_increment), (select count(*) from {gates})`); err != nil {
		return err
	}
	if step != 1 {
		return fmt.Errorf("auto_increment_increment is %d: ids with holes between them are taken for messages that are missing, "+
			"and another primary may fill them; set it to 1, globally and in the DSN", step)
	}
	if gates != gateCount {
		return s.emptied("gates")
	}
	passed, newest, err := s.passedIDs(ctx)
	if err != nil || newest >= passed {
		return err
	}
	next, err := d.nextID(ctx, s)
	if err != nil || next > passed || next == 0 {
		return err
	}
	return fmt.Errorf("%w: the next id of %s is %d, and the ids up to %d have been passed; ALTER TABLE %[2]s AUTO_INCREMENT = %[5]d",
		ErrUnseen, s.write("{messages}"), next, passed, passed+1)
}

// nextID reads the counter, 0 where it was not used. MySQL shows what it knew up to a day ago
// unless it is told not to.
func (mysql) nextID(ctx context.Context, s *store) (next int64, err error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, "set session information_schema_stats_expiry = 0"); err == nil { // MariaDB has no such setting, and no cache
		defer func() {
			_, resetErr := conn.ExecContext(context.WithoutCancel(ctx), "set session information_schema_stats_expiry = default")
			err = errors.Join(err, resetErr)
		}()
	}
	var value sql.NullInt64
	_, err = s.one(ctx, conn, []any{&value}, `select auto_increment from information_schema.tables where table_schema = database() and table_name = ?`, s.cfg.Prefix+"messages")
	return value.Int64, err
}

// checkIDs looks at what SQLite keeps for AUTOINCREMENT.
func (sqlite) checkIDs(ctx context.Context, s *store) error {
	passed, newest, err := s.passedIDs(ctx) // before the counter is read, which others move on
	if err != nil || newest >= passed {
		return err
	}
	var last int64
	if _, err := s.one(ctx, s.db, []any{&last}, `select coalesce((select seq from sqlite_sequence where name = ?), 0)`, s.cfg.Prefix+"messages"); err != nil {
		return err
	}
	if last >= passed {
		return nil
	}
	return fmt.Errorf("%w: the ids of %s are at %d, and those up to %d have been passed; set seq in sqlite_sequence to %[4]d", ErrUnseen, s.write("{messages}"), last, passed)
}

// idWatch looks at the ids again and again, since they can be set back while the process runs.
type idWatch struct {
	mu     sync.Mutex // guards what follows
	looked time.Time
	good   time.Time // the last time that nothing was wrong
	fault  error     // wraps ErrUnseen
	warned time.Time
}

const (
	idInterval = time.Second
	idLogEvery = time.Minute
)

// checkIDs returns what is wrong with the ids, which is looked up when the last time was an
// idInterval ago. That the database can't be reached is for the next statement to say.
func (t *Transport) checkIDs(ctx context.Context) error {
	w := &t.ids
	w.mu.Lock()
	now := time.Now()
	if now.Sub(w.looked) < idInterval {
		defer w.mu.Unlock()
		return w.fault
	}
	w.looked = now // others do not wait for this look
	w.mu.Unlock()

	err := t.store.dialect.checkIDs(ctx, t.store)
	w.mu.Lock()
	defer w.mu.Unlock()
	unseen := errors.Is(err, ErrUnseen)
	switch {
	case err == nil:
		w.good, w.fault = now, nil
		return nil
	case unseen:
		w.fault = err
	case dberr.Away(err) || ctx.Err() != nil:
		return w.fault
	}
	if now.Sub(w.warned) >= idLogEvery {
		w.warned = now
		if unseen {
			t.store.log.ErrorContext(ctx, "what is published is not delivered; once this is fixed, publish again what was published since then",
				"since", w.good, "error", err)
		} else {
			t.store.log.ErrorContext(ctx, "the ids of the log can't be checked", "since", w.good, "error", err)
		}
	}
	return w.fault
}

// knownFault is what checkIDs has found.
func (w *idWatch) knownFault() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fault
}

package sql

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/gotidings/tidings/internal/dberr"
	"github.com/gotidings/tidings/internal/intx"
	"github.com/gotidings/tidings/transports"
)

// store is the log in the database: statements and transactions, and no state.
type store struct {
	db      *sql.DB
	dialect dialect
	cfg     Config
	write   func(query string) string // see dialect
	log     *slog.Logger
	maxRow  int           // the most bytes of a message with its metadata, 0 for any
	file    string        // of SQLite
	writing chan struct{} // holds a token while this process writes, where one writes at a time; else nil
}

func newStore(ctx context.Context, db *sql.DB, cfg Config) (*store, error) {
	if err := ping(ctx, db); err != nil { // or it would be the first query's error, as if that were wrong
		return nil, fmt.Errorf("connect: %w", err)
	}
	if cfg.Dialect == "" {
		var err error
		if cfg.Dialect, err = DialectOf(ctx, db); err != nil {
			return nil, fmt.Errorf("ask the database what it is: %w", err)
		}
		if err := cfg.validate(); err != nil { // Schema depends on it
			return nil, err
		}
	}
	s := &store{db: db, cfg: cfg, dialect: dialectOf(cfg.Dialect), log: cfg.Logger}
	if cfg.Dialect == SQLite {
		var err error
		if s.file, err = intx.File(ctx, db); err != nil {
			return nil, err
		}
		s.writing = make(chan struct{}, 1)
	}
	s.write = cached(writer(s.dialect, cfg.Schema, cfg.Prefix))
	return s, nil
}

// ping opens a connection. Of those that are the first to open a SQLite file, one puts
// it into WAL mode, and the others are refused at once, whatever their busy_timeout: they
// try again for as long.
func ping(ctx context.Context, db *sql.DB) error {
	patience := time.After(sqlitePatience)
	for {
		err := db.PingContext(ctx)
		if err == nil || !strings.Contains(err.Error(), "database is locked") {
			return err
		}
		select {
		case <-time.After(busyPoll):
		case <-patience:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

func dialectOf(d Dialect) dialect {
	return map[Dialect]dialect{Postgres: postgres{}, MySQL: mysql{}, SQLite: sqlite{}}[d]
}

// row is a message to be written.
type row struct {
	topic, eventID, source, key string
	metadata                    string
	payload                     []byte
}

// size is in bytes.
func (r row) size() int {
	return len(r.topic) + len(r.eventID) + len(r.source) + len(r.key) + len(r.metadata) + len(r.payload)
}

// keyKey is the metadata key of the partition key, see package events.
const keyKey = "ce_partitionkey"

// exec runs one statement, and returns how many rows it changed. By itself it is a
// transaction in the isolation level of the session, and is tried again as [store.inTx] does.
func (s *store) exec(ctx context.Context, q Tx, query string, args ...any) (n int, err error) {
	if q != Tx(s.db) {
		return execute(ctx, q, s.write(query), args)
	}
	err = dberr.Retry(ctx, dberr.Patience, func() error {
		done, err := s.beginWrite(ctx)
		if err != nil {
			return err
		}
		defer done()
		n, err = execute(ctx, q, s.write(query), args)
		return err
	})
	return n, err
}

func execute(ctx context.Context, q Tx, query string, args []any) (int, error) {
	res, err := q.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	return int(n), err
}

// query calls scan for each row of a result. By itself, and before the first row, it is tried
// again as exec is.
func (s *store) query(ctx context.Context, q Tx, scan func(*sql.Rows) error, query string, args ...any) error {
	if q != Tx(s.db) {
		return s.scan(ctx, q, scan, query, args)
	}
	var result error
	err := dberr.Retry(ctx, dberr.Patience, func() error {
		scanned := false
		result = s.scan(ctx, q, func(rows *sql.Rows) error { scanned = true; return scan(rows) }, query, args)
		if scanned {
			return nil
		}
		return result
	})
	return cmp.Or(result, err)
}

func (s *store) scan(ctx context.Context, q Tx, scan func(*sql.Rows) error, query string, args []any) (err error) {
	rows, err := q.QueryContext(ctx, s.write(query), args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// one scans the first row of a result, and reports whether there was one.
func (s *store) one(ctx context.Context, q Tx, dest []any, query string, args ...any) (found bool, err error) {
	err = s.query(ctx, q, func(rows *sql.Rows) error {
		if found {
			return nil
		}
		found = true
		return rows.Scan(dest...)
	}, query, args...)
	return found, err
}

func (s *store) scanSubscription(ctx context.Context, tx Tx, query string, id int64, more ...any) (subscriptionRow, error) {
	var r subscriptionRow
	found, err := s.one(ctx, tx, append([]any{&r.version, &r.position, &r.latePosition, &r.maxLate, &r.owner}, more...), query, id)
	if err == nil && !found {
		err = errGone
	}
	return r, err
}

// errGone is the error of a claim for a subscription that was removed.
var errGone = fmt.Errorf("%w any more", transports.ErrNoSubscription)

// inTx runs fn in a transaction, again when it was the victim of a deadlock or of a
// conflict with another one, in which case nothing of it has happened.
func (s *store) inTx(ctx context.Context, fn func(Tx) error) error {
	return dberr.Retry(ctx, dberr.Patience, func() error { return s.tryTx(ctx, fn) })
}

// beginWrite waits for the other writers of this process, where there is one writer at a
// time: SQLite itself makes them wait for longer and longer times, and lets others go first.
func (s *store) beginWrite(ctx context.Context) (done func(), err error) {
	if s.writing == nil {
		return func() {}, nil
	}
	select {
	case s.writing <- struct{}{}:
		return func() { <-s.writing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *store) tryTx(ctx context.Context, fn func(Tx) error) error {
	done, err := s.beginWrite(ctx)
	if err != nil {
		return err
	}
	defer done()
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: s.dialect.isolation()})
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, ignore(tx.Rollback(), sql.ErrTxDone, driver.ErrBadConn))
	}
	return tx.Commit()
}

// ignore drops an error that says what another one has said.
func ignore(err error, known ...error) error {
	if slices.ContainsFunc(known, func(k error) bool { return errors.Is(err, k) }) {
		return nil
	}
	return err
}

// wait returns false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// eventHash finds an event in an index whatever the length of its source and id. What
// it finds is compared.
func eventHash(source, id string) int64 {
	h := fnv.New64a()
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(source)))
	_, _ = h.Write(length[:]) // never fails
	_, _ = h.Write([]byte(source))
	_, _ = h.Write([]byte(id))
	return int64(h.Sum64()) //nolint:gosec // any 64 bits will do
}

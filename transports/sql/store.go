package sql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"strings"
	"time"

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

// exec runs one statement, and returns how many rows it changed.
func (s *store) exec(ctx context.Context, q Tx, query string, args ...any) (int, error) {
	if q == Tx(s.db) {
		done, err := s.beginWrite(ctx)
		if err != nil {
			return 0, err
		}
		defer done()
	}
	res, err := q.ExecContext(ctx, s.write(query), args...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	return int(n), err
}

// query calls scan for each row of a result.
func (s *store) query(ctx context.Context, q Tx, scan func(*sql.Rows) error, query string, args ...any) (err error) {
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

// attempts of a transaction that others disturb.
const attempts = 10

// inTx runs fn in a transaction, again when it was the victim of a deadlock or of a
// conflict with another one, in which case nothing of it has happened.
func (s *store) inTx(ctx context.Context, fn func(Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := s.tryTx(ctx, fn)
		if err == nil || attempt == attempts || !conflict(err) {
			return err
		}
		if !wait(ctx, time.Duration(rand.Int64N(int64(attempt)*int64(5*time.Millisecond)))) {
			return err
		}
	}
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

// code returns the SQLSTATE and the vendor's number of a driver's error, without the
// drivers: pgx and lib/pq have a method for the first, go-sql-driver/mysql a field for
// the second, and modernc.org/sqlite a method.
func code(err error) (state string, number int) {
	var stated interface{ SQLState() string }
	if errors.As(err, &stated) {
		state = stated.SQLState()
	}
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		return state, coded.Code()
	}
	for ; err != nil; err = errors.Unwrap(err) {
		v := reflect.ValueOf(err)
		if v.Kind() == reflect.Pointer && !v.IsNil() && v.Elem().Kind() == reflect.Struct {
			if f := v.Elem().FieldByName("Number"); f.IsValid() && f.Kind() == reflect.Uint16 {
				return state, int(f.Uint())
			}
		}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				if s, n := code(e); s != "" || n != 0 {
					return s, n
				}
			}
		}
	}
	return state, 0
}

// conflict reports whether a transaction failed because of others, and did nothing.
func conflict(err error) bool {
	state, number := code(err)
	switch {
	case state == "40001" || state == "40P01": // serialization failure, deadlock
		return true
	case number == 1213 || number == 1205 || number == 1020: // MySQL: deadlock, lock wait, changed since it was read
		return true
	case state == "" && (number&0xff == 5 || number&0xff == 6) && number < 1000: // SQLite: busy, locked
		return true
	}
	return false
}

// denied reports whether the database's user lacks a right.
func denied(err error) bool {
	state, number := code(err)
	switch number {
	case 1044, 1142, 1143, 1227, 1370: // MySQL: of a database, table, column, server, routine
		return true
	}
	return state == "42501"
}

// away reports whether the database can't be reached, or not now: what failed may be
// tried again.
func away(err error) bool {
	if conflict(err) {
		return true
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	state, number := code(err)
	for _, class := range []string{"08", "57P", "53"} { // connection, shut down or starting, out of resources
		if strings.HasPrefix(state, class) {
			return true
		}
	}
	switch number {
	case 1040, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1203, 1317, 1927, 2002, 2003, 2006, 2013: // MySQL
		return true
	}
	var network *net.OpError
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) ||
		err.Error() == "invalid connection" // go-sql-driver/mysql's ErrInvalidConn, which has no type
}

// eventHash finds an event in an index whatever the length of its source and id. What
// it finds is compared.
func eventHash(source, id string) int64 {
	h := fnv.New64a()
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(source)))
	_, _ = h.Write(length[:]) // never fails
	_, _ = io.WriteString(h, source)
	_, _ = io.WriteString(h, id)
	return int64(h.Sum64()) //nolint:gosec // any 64 bits will do
}

package inbox

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gotidings/tidings/internal/dberr"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// The table has a row for each event and subscription:
//
//	id            SHA-256 of the key, for names and ids of any length
//	state         whether it is claimed or done
//	token         of the claim
//	until_ms      what of the row counts ends then: the lease of a claim, or the retention
//	subscription, source, event_id   for people to read
//
// A row whose time has passed is like none, wherever a claim asks.

// States of a row.
const (
	stateClaimed = 0
	stateDone    = 1
)

// execer is *sql.DB or *sql.Tx.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// statements are those of one dialect.
type statements struct {
	create []string
	check  string
	mark   string // a row that is done, unless there is one
	// Of MySQL, see Inbox.marked: a row that somebody else has committed, and the mark of
	// this transaction.
	duplicate, kept string

	claim   string // a claim; not of MySQL
	seed    string // of MySQL: a row that has ended, unless there is one, and locks it
	take    string // of MySQL: makes that row a claim
	state   string
	renew   string
	done    string
	release string
	clean   string
}

const cleanBatch = 500

// write makes the statements. In them, {t} is the table, {i} its index, {now} the
// database's clock in milliseconds, and ? a parameter.
func write(cfg Config) statements {
	now, quote, greatest := "", `"`, "greatest"
	switch cfg.Dialect {
	case tsql.Postgres:
		now = "(extract(epoch from clock_timestamp()) * 1000)::bigint"
	case tsql.MySQL:
		now, quote = "(timestampdiff(microsecond, '1970-01-01', utc_timestamp(3)) div 1000)", "`"
	case tsql.SQLite:
		now, greatest = "cast((julianday('now') - 2440587.5) * 86400000 as integer)", "max"
	}
	name := func(s string) string { return quote + strings.ReplaceAll(s, quote, quote+quote) + quote }
	table, index := name(cfg.Prefix+"inbox"), name(cfg.Prefix+"inbox_until")
	if cfg.Schema != "" {
		table = name(cfg.Schema) + "." + table
	}
	fill := strings.NewReplacer("{t}", table, "{i}", index, "{now}", now, "{greatest}", greatest).Replace
	w := func(query string) string {
		query = fill(query)
		if cfg.Dialect == tsql.Postgres {
			query = numbered(query)
		}
		return query
	}
	s := statements{
		check:   w(`select id, state, token, until_ms, subscription, source, event_id from {t} where 1 = 0`),
		state:   w(`select state, token, case when until_ms > {now} then 1 else 0 end, {now} from {t} where id = ?`),
		renew:   w(`update {t} set until_ms = {greatest}(until_ms + 1, {now} + ?) where id = ? and token = ? and state = 0`), // MySQL counts the rows that change
		done:    w(`update {t} set state = 1, until_ms = {now} + ? where id = ? and token = ? and state = 0`),
		release: w(`update {t} set until_ms = 0 where id = ? and token = ? and state = 0`),
	}
	const insert = `into {t} (id, state, token, until_ms, subscription, source, event_id) values (?, 1, 0, {now} + ?, ?, ?, ?)`
	switch cfg.Dialect {
	case tsql.MySQL:
		const text = "longtext character set utf8mb4 collate utf8mb4_bin not null"
		s.create = []string{w(`create table if not exists {t} (id binary(32) primary key, state tinyint not null, token bigint not null, until_ms bigint not null, ` +
			`subscription ` + text + `, source ` + text + `, event_id ` + text + `, key until_ms (until_ms)) engine=InnoDB row_format=dynamic`)}
		s.mark = w(`insert ignore ` + insert)
		s.duplicate = w(`select 1 from {t} where id = ? lock in share mode`)
		s.kept = w(`select 1 from {t} where id = ?`)
		// Unlike "insert ignore" it locks the row that is there for writing: a shared lock
		// would have to become one later, for which others with theirs would be waited for.
		s.seed = w(`insert into {t} (id, state, token, until_ms, subscription, source, event_id) values (?, 0, 0, 0, ?, ?, ?) on duplicate key update token = token`)
		s.take = w(`update {t} set state = 0, token = ?, until_ms = {now} + ? where id = ?`)
		s.clean = w(`delete from {t} where until_ms <= {now} order by until_ms limit ` + strconv.Itoa(cleanBatch))
	default:
		bytes, integer, largest, locked := "bytea", "bigint", "greatest", " for update skip locked"
		if cfg.Dialect == tsql.SQLite {
			bytes, integer, largest, locked = "blob", "integer", "max", ""
		}
		s.create = []string{
			w(`create table if not exists {t} (id ` + bytes + ` primary key, state smallint not null, token ` + integer + ` not null, until_ms ` + integer +
				` not null, subscription text not null, source text not null, event_id text not null)`),
			w(`create index if not exists {i} on {t} (until_ms)`),
		}
		s.mark = w(`insert ` + insert + ` on conflict (id) do nothing`)
		s.claim = w(`insert into {t} as old (id, state, token, until_ms, subscription, source, event_id) values (?, 0, {now}, {now} + ?, ?, ?, ?)
on conflict (id) do update set state = 0, token = ` + largest + `(old.token + 1, excluded.token), until_ms = excluded.until_ms where old.until_ms <= {now}
returning token`)
		s.clean = w(`delete from {t} where id in (select id from {t} where until_ms <= {now} order by until_ms limit ` + strconv.Itoa(cleanBatch) + locked + `)`)
	}
	return s
}

// numbered rewrites ? to $1, $2 and so on.
func numbered(query string) string {
	parts := strings.Split(query, "?")
	var b strings.Builder
	for i, part := range parts {
		b.WriteString(part)
		if i < len(parts)-1 {
			b.WriteString("$" + strconv.Itoa(i+1))
		}
	}
	return b.String()
}

// MigrationSQL returns the statements that make the table, for teams that run their own
// migrations. Config.Dialect is required.
func MigrationSQL(cfg Config) ([]string, error) {
	if cfg.Dialect == "" {
		return nil, fmt.Errorf("inbox: Dialect is empty; it takes %q, %q or %q", tsql.Postgres, tsql.MySQL, tsql.SQLite)
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	return write(cfg.withDefaults()).create, nil
}

// Kinds of keys: what a handler's transaction has marked and what the middleware has
// claimed are not the same, or a handler inside the middleware would meet that one's claim.
const (
	kindHandler    = "handler"
	kindMiddleware = "middleware"
)

// keyOf is the id of a row: a digest, with the length of each part so that they can't be
// taken for others.
func keyOf(kind, subscription, source, event, replay string) []byte {
	h := sha256.New()
	for _, part := range []string{kind, subscription, source, event, replay} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		_, _ = h.Write(length[:]) // never fails
		_, _ = h.Write([]byte(part))
	}
	return h.Sum(nil)
}

// text makes what databases take as text: names of subscriptions and ids may hold anything.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// migrate makes the table.
func (ib *Inbox) migrate(ctx context.Context) error {
	if ib.check(ctx) == nil {
		return nil // the usual case needs no right to create anything
	}
	if ib.cfg.Schema != "" {
		var there bool
		err := ib.cfg.DB.QueryRowContext(ctx, "select exists (select 1 from pg_namespace where nspname = $1)", ib.cfg.Schema).Scan(&there)
		if err != nil {
			return err
		}
		if !there {
			name := `"` + strings.ReplaceAll(ib.cfg.Schema, `"`, `""`) + `"`
			if err := ib.create(ctx, "create schema if not exists "+name); err != nil {
				return err
			}
		}
	}
	for _, statement := range ib.sql.create {
		if err := ib.create(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// create runs a statement that other processes may be running as well. PostgreSQL's "if
// not exists" can fail then, and finds the thing there when it is asked again.
func (ib *Inbox) create(ctx context.Context, statement string) (err error) {
	for range 5 {
		if _, err = ib.cfg.DB.ExecContext(ctx, statement); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (ib *Inbox) check(ctx context.Context) (err error) {
	rows, err := ib.cfg.DB.QueryContext(ctx, ib.sql.check)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	return rows.Err()
}

// exec runs a statement by itself, in the isolation level of the session, and again after a
// conflict.
func (ib *Inbox) exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = dberr.Retry(ctx, dberr.Patience, func() (err error) {
		n, err = exec(ctx, ib.cfg.DB, query, args...)
		return err
	})
	return n, err
}

// exec runs a statement and returns how many rows it changed.
func exec(ctx context.Context, q execer, query string, args ...any) (int64, error) {
	res, err := q.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

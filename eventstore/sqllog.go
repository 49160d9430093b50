package eventstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// sqlLog is the log of a SQL transport, with tables beside it.
type sqlLog struct {
	*tsql.Log
	cfg    Config
	index  *tsql.Follower // nil without an index
	sealer *tsql.Follower // nil without seals
}

var (
	_ backend = (*sqlLog)(nil)
	_ replays = (*sqlLog)(nil)
)

// The names of what follows the log. They are subscriptions, and are listed as such.
const (
	indexName = "tidings.eventstore.index"
	sealName  = "tidings.eventstore.seal"
)

func newSQLLog(ctx context.Context, cfg Config) (*sqlLog, error) {
	l := &sqlLog{Log: cfg.Log.Log(), cfg: cfg}
	var err error
	if cfg.Index {
		if err = l.require(ctx, "event_index"); err == nil {
			l.index, err = l.Follower(ctx, indexName)
		}
	} else if l.exists(ctx, "event_index") { // made by another process, whose affair it is to follow
		l.index, err = l.Follower(ctx, indexName)
	}
	if err != nil {
		return nil, fmt.Errorf("make the index: %w", err)
	}
	if cfg.Seal {
		if err = l.require(ctx, "seals"); err == nil {
			l.sealer, err = l.Follower(ctx, sealName)
		}
		if err != nil {
			return nil, fmt.Errorf("make the seals: %w", err)
		}
	}
	return l, nil
}

// tables are those of this package, with {text} for a text that can be a key and {bytes}
// for bytes.
var tables = map[string][]string{
	"event_index": {
		`create table {event_index} (id bigint not null, kind smallint not null, hash bigint not null, primary key (id, kind), unique (kind, hash, id)){options}`,
	},
	"seals": {
		`create table {seals} (n bigint primary key, first_id bigint not null, last_id bigint not null, newest_ms bigint not null, events bigint not null, ` +
			`entries {bytes} not null, entries_digest {bytes} not null, digest {bytes} not null){options}`,
	},
	"replays": {
		`create table {replays} (id {text} primary key, spec {long} not null, position bigint not null, sent bigint not null, done smallint not null, ` +
			`created_ms bigint not null, updated_ms bigint not null){options}`,
	},
}

// MigrationSQL returns the statements that make the tables of this package, for teams
// that run their own migrations: those of the index, of the seals, and of replays. The first
// two are needed with the fields Index and Seal of the configuration, and [New] does not make
// them when the transport has NoMigrate; that of replays is made by the first one, if it is
// missing. cfg is the transport's, with its Dialect.
func MigrationSQL(cfg tsql.Config) ([]string, error) {
	write, err := tsql.Writer(cfg)
	if err != nil {
		return nil, fmt.Errorf("eventstore: %w", err)
	}
	var statements []string
	for _, name := range []string{"event_index", "seals", "replays"} {
		for _, statement := range tables[name] {
			statements = append(statements, write(typed(cfg.Dialect, statement)))
		}
	}
	return statements, nil
}

func typed(d tsql.Dialect, statement string) string {
	types := []string{"{text}", `text`, "{long}", "text", "{bytes}", "bytea", "{options}", ""}
	switch d {
	case tsql.MySQL:
		types = []string{"{text}", "varbinary(255)", "{long}", "longtext character set utf8mb4 collate utf8mb4_bin", "{bytes}", "longblob", "{options}", " engine=InnoDB row_format=dynamic"}
	case tsql.SQLite:
		types[5] = "blob"
	}
	return strings.NewReplacer(types...).Replace(statement)
}

func (l *sqlLog) exists(ctx context.Context, table string) bool {
	rows, err := l.DB().QueryContext(ctx, l.Write("select 1 from {"+table+"} where 1 = 0"))
	if err != nil {
		return false
	}
	defer func() { _ = rows.Close() }() // nothing was read
	return rows.Err() == nil
}

// require makes a table, or says that it is missing where a team makes them itself.
func (l *sqlLog) require(ctx context.Context, table string) error {
	if l.Migrates() || l.exists(ctx, table) {
		return l.create(ctx, table)
	}
	return fmt.Errorf("there is no table %s; run what MigrationSQL returns, or leave NoMigrate of the log unset", l.Write("{"+table+"}"))
}

func (l *sqlLog) create(ctx context.Context, table string) error {
	if l.exists(ctx, table) {
		return nil // the usual case needs no right to create anything
	}
	return l.Migrating(ctx, func(tx tsql.Tx) error {
		if l.exists(ctx, table) { // by another process meanwhile
			return nil
		}
		for _, statement := range tables[table] {
			if _, err := tx.ExecContext(ctx, l.Write(typed(l.cfg.Log.Dialect(), statement))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *sqlLog) add(ctx context.Context, batch []transports.Outgoing) error {
	return l.cfg.Log.PublishBatch(ctx, batch)
}

func (l *sqlLog) read(ctx context.Context, r tsql.Range) ([]tsql.Entry, int64, bool, error) {
	return l.Read(ctx, r)
}

func (l *sqlLog) bounds(ctx context.Context) (int64, int64, error)  { return l.Bounds(ctx) }
func (l *sqlLog) settled(ctx context.Context) (int64, int64, error) { return l.Settled(ctx) }

func (l *sqlLog) place(ctx context.Context, at time.Time) (int64, error) { return l.IDAt(ctx, at) }

// query calls scan for each row.
func (l *sqlLog) query(ctx context.Context, q tsql.Tx, scan func(*sql.Rows) error, query string, args ...any) (err error) {
	rows, err := q.QueryContext(ctx, l.Write(query), args...)
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

// replaySpec is what is kept of a replay as JSON.
type replaySpec struct {
	Subscription string `json:"subscription"`
	Query        Query  `json:"query"`
	First        int64  `json:"first"` // the place before the range
	Until        int64  `json:"until"`
}

func (l *sqlLog) loadReplay(ctx context.Context, id string) (replayRow, bool, error) {
	rows, err := l.selectReplays(ctx, ` where id = ?`, id)
	if err != nil || len(rows) == 0 {
		return replayRow{}, false, err
	}
	return rows[0], true, nil
}

func (l *sqlLog) listReplays(ctx context.Context) ([]replayRow, error) {
	return l.selectReplays(ctx, "")
}

func (l *sqlLog) selectReplays(ctx context.Context, where string, args ...any) ([]replayRow, error) {
	if !l.exists(ctx, "replays") {
		return nil, ctx.Err()
	}
	var found []replayRow
	err := l.query(ctx, l.DB(), func(rows *sql.Rows) error {
		var row replayRow
		var id, spec []byte
		var done int
		var created int64
		if err := rows.Scan(&id, &spec, &row.Position, &row.Sent, &done, &created); err != nil {
			return err
		}
		row.ID, row.Done, row.Created = string(id), done == 1, time.UnixMilli(created).UTC()
		found = append(found, row)
		return json.Unmarshal(spec, &found[len(found)-1].replaySpec)
	}, `select id, spec, position, sent, done, created_ms from {replays}`+where, args...)
	return found, err
}

func (l *sqlLog) createReplay(ctx context.Context, row replayRow) error {
	if err := l.create(ctx, "replays"); err != nil {
		return err
	}
	spec, err := json.Marshal(row.replaySpec)
	if err != nil {
		return err
	}
	return l.InTx(ctx, func(tx tsql.Tx) error {
		_, err := tx.ExecContext(ctx, l.Write(`insert into {replays} (id, spec, position, sent, done, created_ms, updated_ms) values (?, ?, ?, 0, 0, {now}, {now})`), row.ID, string(spec), row.Position)
		return err
	})
}

func (l *sqlLog) moveReplay(ctx context.Context, from, to replayRow) error {
	return l.advanceReplay(ctx, from, to, func(context.Context, tsql.Tx) error { return nil })
}

// advanceReplay sends and moves on in one transaction, first the row, so that of two who
// do the same one waits for the other and then finds that it is not its turn.
func (l *sqlLog) advanceReplay(ctx context.Context, from, to replayRow, send func(ctx context.Context, tx tsql.Tx) error) error {
	done := 0
	if to.Done {
		done = 1
	}
	return l.InTx(ctx, func(tx tsql.Tx) error {
		res, err := tx.ExecContext(ctx, l.Write(`update {replays} set position = ?, sent = ?, done = ?, updated_ms = {now} + 1 where id = ? and position = ? and done = 0`),
			to.Position, to.Sent, done, from.ID, from.Position)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("%w: %s", ErrReplayTaken, from.ID))
		}
		return send(ctx, tx)
	})
}

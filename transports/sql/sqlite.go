package sql

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// sqlite has one writer at a time: what a transaction sees of the log has no gaps, and
// the frontier is the newest message.
type sqlite struct{ plain }

var _ dialect = sqlite{}

func (sqlite) words() map[string]string {
	return map[string]string{
		"now":         "cast((julianday('now') - 2440587.5) * 86400000 as integer)",
		"frontier":    "(select coalesce(max(id), 0) from {messages})",
		"lock":        "",
		"skip locked": "",
		"delete from": "delete from",
		"t by id":     "as t",
		"least":       "min",
		"greatest":    "max",
		"param int":   "?",
		"param text":  "?",
		"param bytes": "?",
		"in topic":    "m.id",
		"topic text":  "m.topic || ''",
	}
}

func (sqlite) table(_, name string) string { return quoted(name, `"`) }

func (sqlite) checkTx(context.Context, Tx) error { return nil }

func (sqlite) isolation() sql.IsolationLevel { return sql.LevelDefault }

// migrations: AUTOINCREMENT, so that a number is never given twice, not even that of the
// newest message after its deletion.
func (sqlite) migrations() [][]string {
	return [][]string{{
		`create table {messages} (
	id integer primary key autoincrement,
	topic text not null,
	event_id text not null,
	source text not null,
	partition_key text not null,
	metadata text not null,
	payload blob not null,
	published_ms integer not null,
	unique (topic, id)
)`,
		`create table {log} (one integer primary key check (one = 1), frontier integer not null, turn integer not null)`,
		`insert into {log} values (1, 0, 0)`,
		`create table {maintenance} (one integer primary key check (one = 1), owner text not null, lease_ms integer not null, turn integer not null)`,
		`insert into {maintenance} values (1, '', 0, 0)`,
		`create table {gaps} (id integer primary key, first integer not null, last integer not null)`,
		`create table {late} (n integer primary key, id integer not null)`,
		`create table {subscriptions} (
	id integer primary key autoincrement,
	name text not null unique,
	version integer not null,
	position integer not null,
	late_position integer not null,
	ephemeral integer not null,
	owner text not null,
	lease_ms integer not null,
	created_ms integer not null,
	seen_ms integer not null
)`,
		`create table {bindings} (
	subscription_id integer not null,
	pattern text not null,
	since integer not null,
	since_late integer not null,
	primary key (subscription_id, pattern)
)`,
		`create table {claims} (
	id integer primary key,
	subscription_id integer not null,
	late integer not null,
	first integer not null,
	last integer not null,
	bound integer not null,
	settled blob,
	owner text not null,
	lease_ms integer not null
)`,
		`create table {deliveries} (
	id integer primary key autoincrement,
	subscription_id integer not null,
	state integer not null,
	due_ms integer not null,
	owner text not null,
	topic text not null,
	event_id text not null,
	source text not null,
	event_hash integer not null,
	metadata text not null,
	payload blob not null,
	created_ms integer not null,
	unique (subscription_id, state, due_ms, id),
	unique (subscription_id, event_hash, id),
	unique (state, due_ms, id)
)`,
		`create table {scheduled} (
	id integer primary key autoincrement,
	due_ms integer not null,
	topic text not null,
	event_id text not null,
	source text not null,
	partition_key text not null,
	metadata text not null,
	payload blob not null,
	unique (due_ms, id)
)`,
	}}
}

// migrate needs no lock of its own: its transaction begins with a write.
func (d sqlite) migrate(ctx context.Context, s *store, fn func(Tx) error) error {
	return s.inTx(ctx, func(tx Tx) error {
		if _, err := s.exec(ctx, tx, migrationsTable); err != nil {
			return err
		}
		if _, err := s.exec(ctx, tx, `delete from {migrations} where version < 0`); err != nil { // a write also when the table is there
			return fmt.Errorf("the table %s can't be written: %w", s.write("{migrations}"), err)
		}
		return fn(tx)
	})
}

func (sqlite) check(context.Context, *store) (int, error) { return 0, nil }

// writeFirst gets the lock of the one writer before anything is read: a transaction that
// reads first and finds that another has written meanwhile can't go on.
func (sqlite) writeFirst(ctx context.Context, s *store, tx Tx) error {
	_, err := s.exec(ctx, tx, `update {log} set turn = turn`)
	return err
}

func (d sqlite) lockFrontier(ctx context.Context, s *store, tx Tx) error {
	return d.writeFirst(ctx, s, tx)
}

func (d sqlite) lockSubscription(ctx context.Context, s *store, tx Tx, id int64) (subscriptionRow, error) {
	if err := d.writeFirst(ctx, s, tx); err != nil {
		return subscriptionRow{}, err
	}
	return s.scanSubscription(ctx, tx, `select version, position, late_position, 0, owner from {subscriptions} where id = ?`, id)
}

func (sqlite) topicRange() string {
	return `select m.id from {messages} m where m.topic = ? and m.id > ? and m.id <= ?`
}

// among looks up one id after the other: a cross join keeps its order.
func (sqlite) among(ids []int64) (string, []any) {
	return "(select column1 as id from (values (" + strings.ReplaceAll(idList(ids), ",", "),(") + "))) i cross join {messages} m on m.id = i.id", nil
}

func (sqlite) gapless() string { return "" }

func (d sqlite) insert(ctx context.Context, s *store, q Tx, rows []row) error {
	return d.plain.insert(ctx, s, q, rows, "{now}")
}

func (sqlite) oneStatement(_ *store, p *parcel) bool {
	return len(p.delayed) == 0 && insertPart(p.rows, insertRows, insertBytes) == len(p.rows)
}

func (sqlite) advance(ctx context.Context, s *store, _ bool) (tail, error) {
	var t tail
	_, err := s.one(ctx, s.db, []any{&t.frontier}, `select {frontier}`)
	return t, err
}

var sqliteOpener = opener{
	dialect: SQLite,
	drivers: []string{"sqlite", "sqlite3"},
	imports: `_ "modernc.org/sqlite"`,
	dsn:     sqliteDSN,
}

// sqlitePatience is how long an operation waits for another process.
const sqlitePatience = 10 * time.Second

// sqliteDSN opens a file in WAL mode, so that readers and the writer do not wait for each
// other, with transactions that lock at their beginning, and patience with other processes.
func sqliteDSN(u *url.URL, driver string) (string, error) {
	path := u.Opaque
	if path == "" {
		path = u.Host + u.Path
	}
	if path == "" {
		return "", fmt.Errorf("it has no file; it looks like sqlite:file.db")
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return "", err
	}
	query := u.Query()
	patience := strconv.FormatInt(sqlitePatience.Milliseconds(), 10)
	if driver == "sqlite" {
		for _, pragma := range []string{"busy_timeout(" + patience + ")", "journal_mode(WAL)", "synchronous(FULL)"} {
			query.Add("_pragma", pragma)
		}
	} else {
		query.Set("_busy_timeout", patience)
		query.Set("_journal_mode", "WAL")
		query.Set("_synchronous", "FULL")
	}
	query.Set("_txlock", "immediate")
	escaped := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
	return "file:" + escaped + "?" + query.Encode(), nil
}

package sql

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"time"

	"github.com/gotidings/tidings/internal/dberr"
)

type postgres struct{}

var _ dialect = postgres{}

func (postgres) words() map[string]string {
	return map[string]string{
		"now":         "(extract(epoch from clock_timestamp()) * 1000)::bigint",
		"frontier":    "(select frontier from {log})",
		"lock":        "for update",
		"skip locked": "for update skip locked",
		"delete from": "delete from",
		"t by id":     "as t",
		"least":       "least",
		"greatest":    "greatest",
		"param int":   "?::bigint", // in a SELECT, parameters have no type
		"param text":  "?::text",
		"param bytes": "?::bytea",
		"in topic":    "m.topic, m.id",
		"topic text":  "m.topic || ''", // no index is of use to a pattern: it has all of the past too
	}
}

func (postgres) rebind(query string) string { return numbered(query) }

func (postgres) table(schema, name string) string {
	if schema == "" {
		return quoted(name, `"`)
	}
	return quoted(schema, `"`) + "." + quoted(name, `"`)
}

// checkTx: a prepared transaction is open like any other, and holds its bound.
func (postgres) checkTx(context.Context, Tx) error { return nil }

func (postgres) isolation() sql.IsolationLevel { return sql.LevelReadCommitted }

// migrations: in messages, tx comes before id. Defaults are evaluated in the order of
// the columns, so a publisher has its transaction id before it takes a number from the
// sequence, and the sequence has no cache: advance depends on both.
func (postgres) migrations() [][]string {
	return [][]string{{
		`create table {messages} (
	tx xid8 not null default pg_current_xact_id(),
	id bigint generated always as identity (cache 1) primary key,
	topic text collate "C" not null,
	event_id text not null,
	source text not null,
	partition_key text not null,
	metadata text not null,
	payload bytea not null,
	published_ms bigint not null default {now},
	unique (topic, id)
)`,
		`create table {log} (one boolean primary key default true check (one), frontier bigint not null, turn bigint not null)`,
		`insert into {log} values (true, 0, 0)`,
		`create table {maintenance} (one boolean primary key default true check (one), owner text not null, lease_ms bigint not null, turn bigint not null)`,
		`insert into {maintenance} values (true, '', 0, 0)`,
		`create table {gaps} (
	id bigint generated always as identity primary key,
	first bigint not null,
	last bigint not null,
	bound xid8 not null,
	unique (first) deferrable initially deferred
)`,
		`create table {late} (n bigint generated always as identity (cache 1) primary key, id bigint not null unique)`,
		`create table {subscriptions} (
	id bigint generated always as identity primary key,
	name text collate "C" not null unique,
	version bigint not null default 1,
	position bigint not null,
	late_position bigint not null,
	ephemeral smallint not null,
	owner text not null,
	lease_ms bigint not null,
	created_ms bigint not null default {now},
	seen_ms bigint not null default {now}
)`,
		`create table {bindings} (
	subscription_id bigint not null references {subscriptions} on delete cascade,
	pattern text collate "C" not null,
	since bigint not null,
	since_late bigint not null,
	primary key (subscription_id, pattern)
)`,
		`create table {claims} (
	id bigint primary key,
	subscription_id bigint not null references {subscriptions} on delete cascade,
	late smallint not null,
	first bigint not null,
	last bigint not null,
	bound bigint not null,
	settled bytea,
	owner text not null,
	lease_ms bigint not null
)`,
		`create table {deliveries} (
	id bigint generated always as identity primary key,
	subscription_id bigint not null references {subscriptions} on delete cascade,
	state smallint not null,
	due_ms bigint not null,
	owner text not null,
	topic text collate "C" not null,
	event_id text not null,
	source text not null,
	event_hash bigint not null,
	metadata text not null,
	payload bytea not null,
	created_ms bigint not null default {now},
	unique (subscription_id, state, due_ms, id),
	unique (subscription_id, event_hash, id),
	unique (state, due_ms, id)
)`,
		`create table {scheduled} (
	id bigint generated always as identity primary key,
	due_ms bigint not null,
	topic text collate "C" not null,
	event_id text not null,
	source text not null,
	partition_key text not null,
	metadata text not null,
	payload bytea not null,
	unique (due_ms, id)
)`,
	}}
}

// migrate holds an advisory lock until the transaction ends: a lock on a table would
// need the table. The lock is that of one prefix. Processes with others may make the same schema at
// the same time: the first one does, and the transactions of the others are run again.
func (d postgres) migrate(ctx context.Context, s *store, fn func(Tx) error) error {
	const most = 20
	for attempt := 1; ; attempt++ {
		err := s.inTx(ctx, func(tx Tx) error {
			if err := d.lockMigration(ctx, s, tx); err != nil {
				return err
			}
			return fn(tx)
		})
		state, _ := dberr.Code(err)
		if state != "23505" && state != "42P06" || attempt == most || !wait(ctx, 10*time.Millisecond) {
			return err
		}
	}
}

// lockMigration also makes the schema.
func (postgres) lockMigration(ctx context.Context, s *store, tx Tx) error {
	key := eventHash("tidings migration", s.write("{migrations}"))
	if _, err := tx.ExecContext(ctx, "select pg_advisory_xact_lock("+strconv.FormatInt(key, 10)+")"); err != nil {
		return err
	}
	if s.cfg.Schema == "" {
		return nil
	}
	var there bool // asked first, since the right to create one is not needed when it is there
	if _, err := s.one(ctx, tx, []any{&there}, "select exists (select 1 from pg_namespace where nspname = ?)", s.cfg.Schema); err != nil || there {
		return err
	}
	_, err := tx.ExecContext(ctx, "create schema "+quoted(s.cfg.Schema, `"`))
	return err
}

func (postgres) check(context.Context, *store) (int, error) { return 0, nil }

// lockSubscription also keeps the planner's guesses out of what follows in the
// transaction: a plan made for unknown parameters may sort the whole log, and to
// compile one takes longer than to run it.
func (postgres) lockSubscription(ctx context.Context, s *store, tx Tx, id int64) (subscriptionRow, error) {
	return s.scanSubscription(ctx, tx, `
select version, position, late_position, (select coalesce(max(n), 0) from {late}), owner,
	set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
	set_config('enable_sort', 'off', true)
from {subscriptions} where id = ? for no key update`, id, new(string), new(string), new(string), new(string), new(string))
}

func (postgres) byIndex(ctx context.Context, s *store, tx Tx) error {
	_, err := s.one(ctx, tx, []any{new(string), new(string), new(string), new(string), new(string)}, `
select set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true),
	set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)`)
	return err
}

// writeFirst has nothing to do: a transaction that has read may still write.
func (postgres) writeFirst(context.Context, *store, Tx) error { return nil }

func (postgres) lockFrontier(ctx context.Context, s *store, tx Tx) error {
	_, err := tx.ExecContext(ctx, s.write("select 1 from {log} for update"))
	return err
}

// topicRange compares rows, so that the index of topic and id has the order and that
// of the ids has not: with statistics that take a topic for a common one, the planner
// would go through all ids, in order, for those of the topic.
func (postgres) topicRange() string {
	return `select m.id from {messages} m where (m.topic, m.id) > (?, ?) and (m.topic, m.id) <= (?, ?)`
}

func (postgres) topicArgs(topic string, first, last int64) []any {
	return []any{topic, first, topic, last}
}

// among looks up one id after the other: the limit keeps the planner from joining in another way.
func (postgres) among(ids []int64) (string, []any) {
	return "unnest(string_to_array(?, ',')::bigint[]) as i(id) cross join lateral (select * from {messages} where id = i.id limit 1) m", []any{idList(ids)}
}

// gapless: gaps do not overlap, so the one that begins last before an id decides.
func (postgres) gapless() string {
	return `coalesce((select g.last from {gaps} g where g.first <= m.id order by g.first desc limit 1), 0) < m.id`
}

// Bounds of one INSERT. A parameter can't have more than 1 GiB.
const (
	postgresRows  = 50_000
	postgresBytes = 64 << 20
)

func (postgres) oneStatement(_ *store, p *parcel) bool {
	return len(p.delayed) == 0 && insertPart(p.rows, postgresRows, postgresBytes) == len(p.rows)
}

func (d postgres) insert(ctx context.Context, s *store, q Tx, rows []row) error {
	for len(rows) > 0 {
		n := insertPart(rows, postgresRows, postgresBytes)
		if err := d.insertRows(ctx, s, q, rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// insertRows is one statement for any number of rows, always of the same text. What is long
// travels in one piece, which is cut up by the server: an array of bytea would have to
// be written as text twice as long for drivers that do not know arrays.
func (postgres) insertRows(ctx context.Context, s *store, q Tx, rows []row) error {
	const columns = `insert into {messages} (topic, event_id, source, partition_key, metadata, payload) `
	if len(rows) == 1 {
		r := rows[0]
		_, err := q.ExecContext(ctx, s.write(columns+`values (?, ?, ?, ?, ?, ?)`), r.topic, r.eventID, r.source, r.key, r.metadata, r.payload)
		return err
	}
	var topics, ids, sources, keys, offsets, metaLens, payloadLens []byte
	var long []byte
	for _, r := range rows {
		topics = appendElement(topics, r.topic)
		ids = appendElement(ids, r.eventID)
		sources = appendElement(sources, r.source)
		keys = appendElement(keys, r.key)
		offsets = appendNumber(offsets, len(long)+1)
		metaLens = appendNumber(metaLens, len(r.metadata))
		payloadLens = appendNumber(payloadLens, len(r.payload))
		long = append(append(long, r.metadata...), r.payload...)
	}
	_, err := q.ExecContext(ctx, s.write(columns+`
select topic, event_id, source, partition_key, convert_from(substring(long from at for meta_len), 'UTF8'), substring(long from at + meta_len for payload_len)
from (select ?::bytea as long) l,
	unnest(?::text[], ?::text[], ?::text[], ?::text[], ?::int[], ?::int[], ?::int[]) as t(topic, event_id, source, partition_key, at, meta_len, payload_len)`),
		long, closeArray(topics), closeArray(ids), closeArray(sources), closeArray(keys), closeArray(offsets), closeArray(metaLens), closeArray(payloadLens))
	return err
}

// appendElement appends a text to an array in PostgreSQL's notation, which is open yet.
func appendElement(b []byte, s string) []byte {
	b = append(b, ',', '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

func appendNumber(b []byte, n int) []byte { return strconv.AppendInt(append(b, ','), int64(n), 10) }

func closeArray(b []byte) string { return "{" + strings.TrimPrefix(string(b), ",") + "}" }

// advanceLimit is the most ids that one advance passes.
const advanceLimit = 10_000

// advance has one statement that matters, and must have no other: the bound of a gap has to be a transaction id
// that was taken after the snapshot in which the id was missing. Whoever will commit
// that id took a transaction id before it took the number, so one below the bound, and
// when no transaction below the bound is open any more, the id has come or never will.
// The lock takes the transaction id, and the snapshot of a single statement is older
// than its locks; that of a second statement would not be.
//
// A snapshot that is older than the last advance could find gaps again that were
// settled meanwhile. So the turn in the snapshot has to be the one that is locked.
//
// A bound that no transaction has reached yet is that of another cluster, from where the tables
// were copied: nothing that was open there can commit here.
//
// What has come into a gap is noted as late by the same snapshot that moves the
// frontier: of two events of which one was published after the other had been
// committed, the later one is never visible first.
func (postgres) advance(ctx context.Context, s *store, pass bool) (tail, error) {
	var t tail
	var turns, passed int
	err := s.inTx(ctx, func(tx Tx) error {
		// Settings take neither a transaction id nor a lock.
		if _, err := s.one(ctx, tx, []any{new(string), new(string), new(string), new(string)}, `
select set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)`); err != nil {
			return err
		}
		_, err := s.one(ctx, tx, []any{&turns, &t.frontier, &passed, &t.missing}, advanceStatement, pass, pass)
		return err
	})
	t.busy = turns == 0
	t.more = passed == advanceLimit
	if pass {
		t.missing = 0
	}
	return t, err
}

var advanceStatement = `
with l as materialized (select frontier, turn from {log} for update skip locked),
s as materialized (select l.frontier from l join {log} snapshot on snapshot.turn = l.turn),
w as materialized (
	select id, id - coalesce(lag(id) over (order by id), (select frontier from s)) as step
	from (select id from {messages} where id > (select frontier from s) order by id limit ` + strconv.Itoa(advanceLimit) + `) m),
h as materialized (select min(id) as id, min(id - step + 1) as missing from w where step > 1),
e as materialized (select max(w.id) as last, count(*) as n from w, h where ? or h.id is null or w.id < h.id),
g as (insert into {gaps} (first, last, bound) select id - step + 1, id - 1, pg_current_xact_id() from w where ? and step > 1),
og as materialized (
	select id, first, last, bound,
		bound <= pg_snapshot_xmin(pg_current_snapshot()) or bound >= pg_snapshot_xmax(pg_current_snapshot()) as dead
	from {gaps} where exists (select 1 from s)),
v as materialized (
	select og.id as gap, og.first, og.last, og.bound, og.dead, m.id
	from og cross join lateral (select id from {messages} where id between og.first and og.last) m),
n as (insert into {late} (id) select id from v order by id),
r as (
	insert into {gaps} (first, last, bound)
	select lo, hi, bound from (
		select coalesce(lag(id) over (partition by gap order by id) + 1, first) as lo, id - 1 as hi, bound from v where not dead
		union all
		select max(id) + 1, last, bound from v where not dead group by gap, last, bound) rest
	where lo <= hi),
d as (delete from {gaps} where id in (select gap from v union select id from og where dead)),
u as (
	update {log} set frontier = coalesce(e.last, {log}.frontier), turn = turn + 1 from e
	where e.last is not null or exists (select 1 from v) or exists (select 1 from og where dead))
select (select count(*) from s), coalesce(e.last, (select frontier from s), 0), e.n, coalesce(h.missing, 0) from e, h`

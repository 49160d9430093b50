package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// mysql is MySQL and MariaDB, with InnoDB. There is no number by which one could tell
// that nobody is open any more who may still commit a missing id, and no lock on the id
// itself: who has reserved ids and waits for something has locked none of them. So each
// publishing transaction first takes a shared lock on a gate, before it gets an id, and
// keeps it until it ends. See advance for what that tells.
type mysql struct{ plain }

var _ dialect = mysql{}

// gateCount is how many gates there are: more than one can be held up by transactions
// that stay open for long, before gaps wait for those to end. They are bits of a bigint.
const gateCount = 48

// gateTurn is how long publishers come to one gate.
const gateTurn = 250 * time.Millisecond

func (mysql) words() map[string]string {
	return map[string]string{
		"now":         "(timestampdiff(microsecond, '1970-01-01', utc_timestamp(3)) div 1000)",
		"frontier":    "(select frontier from {log})",
		"lock":        "for update",
		"skip locked": "for update skip locked",
		// Where the planner takes a list of ids for most of a table it goes through all of it,
		// and locks each row for a moment. Who skips locked rows then passes over rows that
		// nobody has, and later ones come first.
		"delete from": "delete t from",
		"t by id":     "t force index (primary)",
		"least":       "least",
		"greatest":    "greatest",
		"param int":   "?",
		"param text":  "?",
		"param bytes": "?",
		"in topic":    "m.id",                // by both, MariaDB reads and sorts all that is left of the topic
		"topic text":  "concat(m.topic, '')", // no index is of use to a pattern: it has all of the past too
	}
}

func (mysql) table(_, name string) string { return quoted(name, "`") }

func (mysql) isolation() sql.IsolationLevel { return sql.LevelReadCommitted }

// migrations can be run again from the middle: MySQL commits after each of them.
func (mysql) migrations() [][]string {
	const (
		// Names are compared byte by byte; a collation would merge some of them.
		name    = "varbinary(" + "1000" + ") not null"
		text    = "longtext character set utf8mb4 collate utf8mb4_bin not null"
		serial  = "bigint not null auto_increment primary key"
		number  = "bigint not null"
		options = ") engine=InnoDB row_format=dynamic"
	)
	gates := make([]string, gateCount)
	for i := range gates {
		gates[i] = "(" + strconv.Itoa(i) + ")"
	}
	return [][]string{{
		`create table if not exists {messages} (id ` + serial + `, topic ` + name + `, event_id ` + text + `, source ` + text + `, partition_key ` + text +
			`, metadata ` + text + `, payload longblob not null, published_ms ` + number + `, unique key topic_id (topic, id)` + options,
		`create table if not exists {log} (one tinyint primary key, frontier ` + number + `, turn ` + number + options,
		`insert ignore into {log} values (1, 0, 0)`,
		`create table if not exists {maintenance} (one tinyint primary key, owner varbinary(100) not null, lease_ms ` + number + `, turn ` + number + options,
		`insert ignore into {maintenance} values (1, '', 0, 0)`,
		`create table if not exists {gates} (id tinyint primary key` + options,
		`insert ignore into {gates} values ` + strings.Join(gates, ", "),
		`create table if not exists {gaps} (id ` + serial + `, first ` + number + `, last ` + number + `, pending ` + number + `, key first (first)` + options,
		`create table if not exists {late} (n ` + serial + `, id bigint not null unique` + options,
		`create table if not exists {subscriptions} (id ` + serial + `, name varbinary(1000) not null unique, version ` + number + `, position ` + number +
			`, late_position ` + number + `, ephemeral ` + number + `, owner varbinary(100) not null, lease_ms ` + number + `, created_ms ` + number + `, seen_ms ` + number + options,
		`create table if not exists {bindings} (subscription_id ` + number + `, pattern ` + name + `, since ` + number + `, since_late ` + number +
			`, primary key (subscription_id, pattern)` + options,
		`create table if not exists {claims} (id bigint primary key, subscription_id ` + number + `, late ` + number + `, first ` + number + `, last ` + number +
			`, bound ` + number + `, settled longblob, owner varbinary(100) not null, lease_ms ` + number + `, key subscription (subscription_id)` + options,
		`create table if not exists {deliveries} (id ` + serial + `, subscription_id ` + number + `, state ` + number + `, due_ms ` + number +
			`, owner varbinary(100) not null, topic ` + name + `, event_id ` + text + `, source ` + text + `, event_hash ` + number + `, metadata ` + text +
			`, payload longblob not null, created_ms ` + number +
			`, key subscription_due (subscription_id, state, due_ms), key event (subscription_id, event_hash), key due (state, due_ms)` + options,
		`create table if not exists {scheduled} (id ` + serial + `, due_ms ` + number + `, topic ` + name + `, event_id ` + text + `, source ` + text +
			`, partition_key ` + text + `, metadata ` + text + `, payload longblob not null, key due (due_ms)` + options,
	}}
}

// migrate holds a named lock on a connection of its own.
func (d mysql) migrate(ctx context.Context, s *store, fn func(Tx) error) (err error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	name := "tidings " + strconv.FormatUint(uint64(eventHash("migration", s.write("{migrations}"))), 16) //nolint:gosec // a name
	var got sql.NullInt64
	if _, err := s.one(ctx, conn, []any{&got}, `select get_lock(concat(?, database()), 60)`, name); err != nil {
		return err
	}
	if got.Int64 != 1 {
		return errors.New("another process has been migrating for a minute")
	}
	defer func() {
		_, unlockErr := s.one(context.WithoutCancel(ctx), conn, []any{&got}, `select release_lock(concat(?, database()))`, name)
		err = errors.Join(err, unlockErr)
	}()
	return fn(conn)
}

// packetMargin is what a packet has room for besides a payload; metadataMargin is how much
// of it metadata, names and ids can take, and the rest is the protocol's.
const (
	packetMargin   = 1 << 20
	metadataMargin = packetMargin / 2
	minPacket      = 2 * packetMargin
)

func (mysql) check(ctx context.Context, s *store) (int, error) {
	var version, format string
	var packet, binlog int
	_, err := s.one(ctx, s.db, []any{&version, &packet, &binlog, &format}, `select version(), @@max_allowed_packet, @@log_bin, @@binlog_format`)
	if err != nil {
		return 0, err
	}
	var faults []error
	major, minor := parseVersion(version)
	if oldest := [2]int{8, 0}; strings.Contains(version, "MariaDB") {
		if major < 10 || major == 10 && minor < 6 {
			faults = append(faults, fmt.Errorf("it is MariaDB %s; 10.6 or later is needed", version))
		}
	} else if major < oldest[0] {
		faults = append(faults, fmt.Errorf("it is MySQL %s; 8.0 or later is needed", version))
	}
	if binlog == 1 && format == "STATEMENT" {
		faults = append(faults, errors.New("binlog_format is STATEMENT, with which READ COMMITTED can't be used; set it to ROW or MIXED"))
	}
	var name, galera string
	if found, err := s.one(ctx, s.db, []any{&name, &galera}, `show variables like 'wsrep_on'`); err == nil && found && galera == "ON" {
		faults = append(faults, errors.New("it is a Galera cluster, whose nodes do not see each other's locks"))
	}
	maxBytes, err := payloadLimit(packet)
	return maxBytes, errors.Join(append(faults, err)...)
}

// payloadLimit is the largest payload that fits into a packet.
func payloadLimit(packet int) (int, error) {
	if packet < minPacket { // what is left could be less than nothing
		return 0, fmt.Errorf("max_allowed_packet is %d bytes; at least %d is needed", packet, minPacket)
	}
	return packet - packetMargin, nil
}

func parseVersion(version string) (major, minor int) {
	_, _ = fmt.Sscanf(version, "%d.%d", &major, &minor) // 0 where it is something else
	return major, minor
}

func (mysql) writeFirst(context.Context, *store, Tx) error { return nil }

func (mysql) lockFrontier(ctx context.Context, s *store, tx Tx) error {
	_, err := s.one(ctx, tx, []any{new(int64)}, `select frontier from {log} for update`)
	return err
}

func (mysql) lockSubscription(ctx context.Context, s *store, tx Tx, id int64) (subscriptionRow, error) {
	return s.scanSubscription(ctx, tx, `
select version, position, late_position, (select coalesce(max(n), 0) from {late}), owner from {subscriptions} where id = ? for update`, id)
}

func (mysql) topicRange() string {
	return `select m.id from {messages} m force index (topic_id) where m.topic = ? and m.id > ? and m.id <= ?`
}

func (mysql) among(ids []int64) (string, []any) {
	return "{messages} m force index (primary) where m.id in (" + idList(ids) + ")", nil
}

func (mysql) gapless() string {
	return `coalesce((select g.last from {gaps} g where g.first <= m.id order by g.first desc limit 1), 0) < m.id`
}

// oneStatement: the gate is locked until the end of the statement's own transaction.
func (mysql) oneStatement(s *store, p *parcel) bool {
	return len(p.delayed) == 0 && s.insertPart(p.rows) == len(p.rows)
}

// insert locks a gate before it takes ids, until the end of the transaction. Which one
// does not matter for what is right. It is another one every gateTurn, so that one becomes
// free soon after, however many publishers there are.
//
// The lock is part of the first row's values, so that it costs no round trip: they are
// evaluated before the row is written, and the id is taken as it is. Where the gates are
// missing the value is NULL, which the column refuses. The gate is told from the clock and
// not read from a table: with REPEATABLE READ a statement that writes locks what it reads,
// and a row of {log} that is locked until a transaction ends would stop everybody. It is this
// process's clock, since the server takes a third longer for a statement that computes the gate.
func (d mysql) insert(ctx context.Context, s *store, q Tx, rows []row) error {
	gate := time.Now().UnixNano() / int64(gateTurn) % gateCount
	return d.plain.insert(ctx, s, q, rows, "{now} + 0 * (select id from {gates} where id = ? lock in share mode)", gate)
}

// mysqlGap is a row of gaps. pending has a bit for each gate that may still be held by
// one who has reserved an id of it.
type mysqlGap struct {
	id, first, last, pending int64
}

// advance moves the frontier and looks at what was missing, in one transaction with a
// snapshot for each of its statements.
//
// First it locks every gate that nobody holds, until it ends: of those, nobody is open
// who had an id before. Then it reads what is there. An id that is missing belongs to a
// holder of another gate, or to nobody; those gates are pending, and each of them that is
// found free later, once, is not any more: whoever locks it then takes other ids. With
// none left, the id that is still missing will not come.
//
// What came into gaps is read after what is new: of two events of which one was published
// after the other had been committed, the later one is never seen without the other.
func (d mysql) advance(ctx context.Context, s *store, pass bool) (tail, error) {
	var t tail
	err := s.inTx(ctx, func(tx Tx) error {
		t = tail{}
		var turn int64
		found, err := s.one(ctx, tx, []any{&t.frontier, &turn}, `select frontier, turn from {log} for update skip locked`)
		if t.busy = !found; err != nil || t.busy {
			return err
		}
		gaps, err := d.readGaps(ctx, s, tx)
		if err != nil {
			return err
		}
		var free int64
		if pass || len(gaps) > 0 {
			if free, err = d.freeGates(ctx, s, tx); err != nil {
				return err
			}
		}
		fresh, err := d.readNew(ctx, s, tx, &t, pass)
		if err != nil {
			return err
		}
		const all = 1<<gateCount - 1
		for i := range fresh {
			fresh[i].pending = all &^ free
		}
		if err := d.settleGaps(ctx, s, tx, gaps, free); err != nil {
			return err
		}
		if err := d.insertGaps(ctx, s, tx, fresh); err != nil {
			return err
		}
		_, err = s.exec(ctx, tx, `update {log} set frontier = ?, turn = ?`, t.frontier, turn+1)
		return err
	})
	return t, err
}

func (mysql) readGaps(ctx context.Context, s *store, tx Tx) ([]mysqlGap, error) {
	var gaps []mysqlGap
	err := s.query(ctx, tx, func(rows *sql.Rows) error {
		var g mysqlGap
		err := rows.Scan(&g.id, &g.first, &g.last, &g.pending)
		gaps = append(gaps, g)
		return err
	}, `select id, first, last, pending from {gaps} order by first`)
	return gaps, err
}

// freeGates locks the gates that nobody holds, and returns their bits.
func (mysql) freeGates(ctx context.Context, s *store, tx Tx) (bits int64, err error) {
	err = s.query(ctx, tx, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		bits |= 1 << id
		return err
	}, `select id from {gates} for update skip locked`)
	return bits, err
}

// readNew moves t over the ids above the frontier, and returns the gaps between them.
func (mysql) readNew(ctx context.Context, s *store, tx Tx, t *tail, pass bool) (gaps []mysqlGap, err error) {
	n := 0
	err = s.query(ctx, tx, func(rows *sql.Rows) error {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		n++
		switch {
		case t.missing != 0:
			return nil
		case id == t.frontier+1:
		case pass:
			gaps = append(gaps, mysqlGap{first: t.frontier + 1, last: id - 1})
		default:
			t.missing = t.frontier + 1
			return nil
		}
		t.frontier = id
		return nil
	}, `select id from {messages} where id > ? order by id limit `+strconv.Itoa(advanceLimit), t.frontier)
	t.more = n == advanceLimit && t.missing == 0
	return gaps, err
}

// settleGaps notes what came into gaps as late, and forgets what will not come.
func (d mysql) settleGaps(ctx context.Context, s *store, tx Tx, gaps []mysqlGap, free int64) error {
	if len(gaps) == 0 {
		return nil
	}
	var late []int64
	var rest []mysqlGap
	var gone []int64
	for _, g := range gaps {
		pending := g.pending &^ free
		from := g.first
		came := 0
		err := s.query(ctx, tx, func(rows *sql.Rows) error {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			late = append(late, id)
			if came++; id > from {
				rest = append(rest, mysqlGap{first: from, last: id - 1, pending: pending})
			}
			from = id + 1
			return nil
		}, `select id from {messages} where id >= ? and id <= ? order by id`, g.first, g.last)
		if err != nil {
			return err
		}
		if came == 0 && pending == g.pending && pending != 0 {
			continue // nothing has changed
		}
		gone = append(gone, g.id)
		if from <= g.last {
			rest = append(rest, mysqlGap{first: from, last: g.last, pending: pending})
		}
	}
	for len(late) > 0 {
		part := late[:min(len(late), 1000)]
		late = late[len(part):]
		if _, err := s.exec(ctx, tx, `insert into {late} (id) values (`+strings.ReplaceAll(idList(part), ",", "),(")+`)`); err != nil {
			return err
		}
	}
	for len(gone) > 0 {
		part := gone[:min(len(gone), 1000)]
		gone = gone[len(part):]
		if _, err := s.exec(ctx, tx, `delete from {gaps} where id in (`+idList(part)+`)`); err != nil {
			return err
		}
	}
	return d.insertGaps(ctx, s, tx, rest)
}

func (mysql) insertGaps(ctx context.Context, s *store, tx Tx, gaps []mysqlGap) error {
	var values []string
	for i, g := range gaps {
		if g.pending != 0 {
			values = append(values, fmt.Sprintf("(%d, %d, %d)", g.first, g.last, g.pending))
		}
		if len(values) == 0 || len(values) < 1000 && i < len(gaps)-1 {
			continue
		}
		if _, err := s.exec(ctx, tx, `insert into {gaps} (first, last, pending) values `+strings.Join(values, ", ")); err != nil {
			return err
		}
		values = values[:0]
	}
	return nil
}

var mysqlOpener = opener{
	dialect: MySQL,
	drivers: []string{"mysql"},
	imports: `_ "github.com/go-sql-driver/mysql"`,
	dsn: func(u *url.URL, _ string) (string, error) {
		database := strings.TrimPrefix(u.Path, "/")
		if u.Host == "" || database == "" || strings.Contains(database, "/") {
			return "", errors.New("it looks like mysql://user:password@host:3306/database")
		}
		host := u.Host
		if u.Port() == "" {
			host += ":3306"
		}
		user := u.User.Username()
		if strings.Contains(user, ":") {
			return "", errors.New("the driver takes no user name with a colon")
		}
		if password, ok := u.User.Password(); ok {
			user += ":" + password
		}
		dsn := user + "@tcp(" + host + ")/" + url.PathEscape(database)
		query := u.Query()
		for _, defaults := range []map[string]string{mysqlSession, mysqlDriver} {
			for name, value := range defaults {
				if !query.Has(name) {
					query.Set(name, value)
				}
			}
		}
		return dsn + "?" + query.Encode(), nil
	},
}

// mysqlSession are settings of the session that the library needs, see package dbsettings;
// the server may have others as its defaults.
var mysqlSession = map[string]string{
	"autocommit":       "1",
	"sql_mode":         "'STRICT_TRANS_TABLES'",
	"sql_safe_updates": "0",
	"sql_select_limit": "default",
}

// mysqlDriver are parameters of the driver. Without interpolation it prepares, executes and
// closes each statement. It does so still where the text of a statement, in which a byte may
// take two, is too long for the server's packets, if it asks the server for their size.
var mysqlDriver = map[string]string{"interpolateParams": "true", "maxAllowedPacket": "0"}

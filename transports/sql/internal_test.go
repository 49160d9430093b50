package sql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/transports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// No driver is linked here.
func TestOpenNamesTheMissingImport(t *testing.T) {
	t.Parallel()
	for rawURL, want := range map[string]string{
		"postgres://user:secret@host/db":   `_ "github.com/jackc/pgx/v5/stdlib"`,
		"postgresql://user:secret@host/db": `_ "github.com/jackc/pgx/v5/stdlib"`,
		"mysql://user:secret@host/db":      `_ "github.com/go-sql-driver/mysql"`,
		"sqlite:file.db":                   `_ "modernc.org/sqlite"`,
	} {
		_, err := transports.Open(t.Context(), rawURL)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v; want %s in it", rawURL, err, want)
		}
	}
}

func TestOpenRefusesParameters(t *testing.T) {
	t.Parallel()
	for _, rawURL := range []string{
		"postgres://host/db?lease=10", "postgres://host/db?lease=1ms", "postgres://host/db?pool_size=0", "postgres://host/db?migrate=perhaps",
		"mysql://host/db?schema=s", "sqlite:f.db?max_message_bytes=-1", "postgres://host/db?retention=x", "postgres://host/db?a=%zz",
	} {
		if _, err := transports.Open(t.Context(), rawURL); !errors.Is(err, transports.ErrInvalidURL) {
			t.Errorf("%s: %v; want ErrInvalidURL", rawURL, err)
		}
	}
}

func TestParameters(t *testing.T) {
	t.Parallel()
	u, err := url.Parse("postgres://u:p@h/db?schema=s&prefix=p_&migrate=false&lease=5s&poll_interval=1s&retention=-1s&max_message_bytes=7&pool_size=3&sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cfg, pool, rest, err := parameters(u)
	want := Config{Schema: "s", Prefix: "p_", NoMigrate: true, Lease: 5 * time.Second, PollInterval: time.Second, Retention: -time.Second, MaxMessageBytes: 7}
	if err != nil || cfg != want || pool != 3 || rest.String() != "postgres://u:p@h/db?sslmode=disable" {
		t.Errorf("got %+v, %d, %s, %v", cfg, pool, rest, err)
	}
}

func TestDSN(t *testing.T) {
	t.Parallel()
	const session = "autocommit=1&interpolateParams=true&maxAllowedPacket=0&sql_mode=%27STRICT_TRANS_TABLES%27&sql_safe_updates=0&sql_select_limit=default"
	for _, c := range []struct {
		url    string
		opener opener
		driver string
		want   string // "" for an error
	}{
		{"mysql://root@h:1/db", mysqlOpener, "mysql", "root@tcp(h:1)/db?" + session},
		{"mysql://u:p%40ss%2Fword@h/db?tls=true", mysqlOpener, "mysql", "u:p@ss/word@tcp(h:3306)/db?" + session + "&tls=true"},
		{"mysql://h/db?sql_mode=ANSI", mysqlOpener, "mysql", "@tcp(h:3306)/db?" + strings.Replace(session, "%27STRICT_TRANS_TABLES%27", "ANSI", 1)},
		{"mysql://h/db?interpolateParams=false", mysqlOpener, "mysql", "@tcp(h:3306)/db?" + strings.Replace(session, "interpolateParams=true", "interpolateParams=false", 1)},
		{"mysql://h", mysqlOpener, "mysql", ""},
		{"mysql://h/a/b", mysqlOpener, "mysql", ""},
		{"mysql://a%3Ab@h/db", mysqlOpener, "mysql", ""},
		{"sqlite:q.db", sqliteOpener, "sqlite3", "file:q.db?_busy_timeout=10000&_journal_mode=WAL&_synchronous=FULL&_txlock=immediate"},
		{"sqlite:///a/b%20c%3f.db", sqliteOpener, "sqlite", "file:/a/b c%3f.db?_pragma=busy_timeout%2810000%29&_pragma=journal_mode%28WAL%29&_pragma=synchronous%28FULL%29&_txlock=immediate"},
		{"sqlite:", sqliteOpener, "sqlite", ""},
	} {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.opener.dsn(u, c.driver)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: %q, %v; want %q", c.url, got, err, c.want)
		}
	}
}

func TestConcealedPassword(t *testing.T) {
	t.Parallel()
	u := &url.URL{User: url.UserPassword("u", "secret")}
	if err := conceal(errors.New("can't log in with secret"), u); strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	if err := conceal(errors.New("user ada: can't log in with secret"), u); err.Error() != "user ada: can't log in with ***" {
		t.Errorf("%v: want all but the password", err)
	}
	same, _ := url.Parse("postgres://postgres:postgres@host/postgres")
	if refused := fmt.Errorf("user=postgres: %w", io.EOF); !errors.Is(conceal(refused, same), io.EOF) {
		t.Errorf("%v: want the whole error: the word is no secret", conceal(refused, same))
	}
	if err := conceal(errors.New("parse postgres://postgres:postgres@host"), same); strings.Contains(err.Error(), "postgres:postgres@") {
		t.Errorf("%v has the password", err)
	}
	if plain := errors.New("no such host"); !errors.Is(conceal(plain, u), plain) {
		t.Error("an error without the password is hidden")
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 33)
	err := Config{Dialect: "oracle", Prefix: long, Schema: "a?b", MaxMessageBytes: -1, Lease: time.Millisecond, PollInterval: -1, ExpireAfter: -1}.validate()
	if err == nil {
		t.Fatal("it is accepted")
	}
	for _, want := range []string{"oracle", "Prefix has 33", `"a?b"`, "MaxMessageBytes", "Lease", "PollInterval", "ExpireAfter"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if err := (Config{Dialect: MySQL, Schema: "s"}).validate(); err == nil {
		t.Error("a schema of MySQL is accepted")
	}
	if err := (Config{}).validate(); err != nil {
		t.Error(err)
	}
}

func TestNumbered(t *testing.T) {
	t.Parallel()
	if got := numbered("a = ? and b in (?, ?)"); got != "a = $1 and b in ($2, $3)" {
		t.Error(got)
	}
}

// A LIKE pattern has to match whatever the topic pattern does.
func TestLike(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"#": "%", "*": "%", "order.*": "order.%", "order.#": "order%", "#.added": "%added", "a.#.d": "a%d", "a.*.d": "a.%.d",
		"100%_!.*": "100!%!_!!.%", "*.#.d": "%%d", "#.#": "%%",
	} {
		if got := like(pattern); got != want {
			t.Errorf("%s: %q; want %q", pattern, got, want)
		}
	}
}

// What was committed before a pattern was added is not for the group, by either cursor.
func TestGroupTakesFromSinceOn(t *testing.T) {
	t.Parallel()
	g := &group{bindings: []binding{{"order.*", 100, 7}, {"a", 0, 0}}}
	for _, c := range []struct {
		topic string
		id, n int64
		want  bool
	}{
		{"order.created", 100, 0, false},
		{"order.created", 101, 0, true},
		{"order.created", 101, 7, false},
		{"order.created", 50, 8, true},
		{"a", 1, 0, true},
		{"a", 1, 1, true},
		{"b", 200, 0, false},
	} {
		if got := g.takes(c.topic, c.id, c.n); got != c.want {
			t.Errorf("%+v: got %t", c, got)
		}
	}
}

func TestInsertPart(t *testing.T) {
	t.Parallel()
	rows := make([]row, 5)
	for i := range rows {
		rows[i] = row{topic: "t", eventID: "i", source: "s", key: "k", metadata: "m", payload: make([]byte, 5)}
	}
	for _, c := range []struct{ rows, bytes, want int }{{10, 100, 5}, {3, 100, 3}, {10, 25, 2}, {10, 19, 1}, {10, 1, 1}, {1, 1, 1}, {5, 50, 5}} {
		if got := insertPart(rows, c.rows, c.bytes); got != c.want {
			t.Errorf("at most %d rows of %d bytes: %d; want %d", c.rows, c.bytes, got, c.want)
		}
	}
}

func TestPayloadLimit(t *testing.T) {
	t.Parallel()
	for packet, want := range map[int]int{1 << 10: 0, 1 << 20: 0, 2<<20 - 1: 0, 2 << 20: 1 << 20, 16 << 20: 15 << 20} {
		if got, err := payloadLimit(packet); got != want || (err == nil) != (want > 0) {
			t.Errorf("%d: %d, %v; want %d", packet, got, err, want)
		}
	}
}

// statements is a transaction that notes what it is given.
type statements struct {
	Tx
	bytes []int // of the arguments of each
}

func (s *statements) ExecContext(_ context.Context, _ string, args ...any) (sql.Result, error) {
	n := 0
	for _, arg := range args {
		if b, ok := arg.([]byte); ok {
			n += len(b)
		}
	}
	s.bytes = append(s.bytes, n)
	return driver.RowsAffected(0), nil
}

// A statement is no larger than the server's packets.
func TestInsertFitsIntoPackets(t *testing.T) {
	t.Parallel()
	rows := slices.Repeat([]row{{payload: make([]byte, 600<<10)}}, 10)
	for maxRow, want := range map[int]int{0: 2, 16 << 20: 2, 1 << 20: 10} {
		s := &store{dialect: mysql{}, maxRow: maxRow, write: writer(mysql{}, "", "")}
		var tx statements
		if err := (plain{}).insert(t.Context(), s, &tx, rows, "{now}"); err != nil {
			t.Fatal(err)
		}
		if len(tx.bytes) != want {
			t.Errorf("with messages of up to %d bytes: statements of %d; want %d of them", maxRow, tx.bytes, want)
		}
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	c := &claim{first: 10, last: 1000}
	for _, id := range []int64{11, 20, 30, 300, 1000} {
		c.add(id, id)
	}
	check := func(wantFirst int64, want ...int64) {
		t.Helper()
		first, settled := c.progress()
		places := settledPlaces(first, settled)
		if first != wantFirst || len(places) != len(want) {
			t.Fatalf("got %d, %v; want %d, %v", first, places, wantFirst, want)
		}
		for _, place := range want {
			if !places[place] {
				t.Fatalf("got %v; want %v", places, want)
			}
		}
	}
	check(10)
	c.settle(2)
	c.settle(4)
	check(10, 30, 1000)
	c.settle(0)
	check(11, 30, 1000)
	c.settle(1)
	c.settle(1)
	check(30, 1000)
	if c.left != 1 {
		t.Errorf("%d are left; want 1", c.left)
	}
	c.truncate(2)
	if c.left != 0 || c.last != 20 {
		t.Errorf("%d are left up to %d", c.left, c.last)
	}
	if got := settledPlaces(0, []byte{0x80}); len(got) != 0 {
		t.Error("half a number is read")
	}
}

func TestQueueKeepsOrder(t *testing.T) {
	t.Parallel()
	var q queue
	items := make([]*item, 6)
	for i := range items {
		items[i] = &item{seq: int64(i)}
		q.push(items[i])
	}
	first, second, third := q.pop(), q.pop(), q.pop()
	q.insert(second)
	q.insert(third)
	q.insert(first)
	q.drop(func(it *item) bool { return it.seq == 4 })
	var got []int64
	for it := q.pop(); it != nil; it = q.pop() {
		got = append(got, it.seq)
	}
	if !slices.Equal(got, []int64{0, 1, 2, 3, 5}) {
		t.Errorf("got %v", got)
	}
	q.insert(items[3])
	q.insert(items[1])
	if q.len() != 2 || q.pop().seq != 1 || q.pop().seq != 3 || q.pop() != nil {
		t.Error("an empty queue takes nothing back in order")
	}
}

func TestPaceForgetsAtOnce(t *testing.T) {
	t.Parallel()
	var p pace
	now := time.Unix(1000, 0)
	p.resume(now)
	p.n = 1000
	if got := p.ahead(now.Add(100 * time.Millisecond)); got != 500 {
		t.Errorf("ahead %d; want 500: half of what it was, 0, and what it is, 10,000/s, for 100 ms", got)
	}
	if got := p.ahead(now.Add(time.Second)); got != 0 {
		t.Errorf("ahead %d of a receiver that has stopped; want 0", got)
	}
	p.n = 1 << 30
	if got := p.ahead(now.Add(2 * time.Second)); got != maxAhead {
		t.Errorf("ahead %d; want the most, %d", got, maxAhead)
	}
}

// A quick receiver that waits for each claim gets larger ones, however long they take. A
// claim of one message that took 350 ms says nothing about the receiver.
func TestPaceGrowsBehindASlowDatabase(t *testing.T) {
	t.Parallel()
	var p pace
	now := time.Unix(1000, 0)
	claims, ahead := 0, 0
	for ; ahead < maxAhead; claims++ {
		if claims == 10 {
			t.Fatalf("after %d claims %d are ahead; want %d", claims, ahead, maxAhead)
		}
		now = now.Add(350 * time.Millisecond)
		smooth(&p.claiming, 350*time.Millisecond)
		n := 1 + ahead
		p.resume(now)
		now = now.Add(time.Duration(n) * 20 * time.Microsecond)
		for range n {
			p.count()
		}
		p.pause(now)
		ahead = p.ahead(now)
	}
	if ahead = p.ahead(now.Add(time.Minute)); ahead != 0 {
		t.Errorf("after a minute without work %d are ahead; want 0", ahead)
	}
	p.resume(now)
	p.count()
	p.pause(now.Add(time.Microsecond))
	if ahead = p.ahead(now.Add(time.Minute)); ahead > paceGrowth {
		t.Errorf("after one message in a minute %d are ahead; want at most %d", ahead, paceGrowth)
	}
}

func TestMigrationSQL(t *testing.T) {
	t.Parallel()
	if _, err := MigrationSQL(Config{}); err == nil {
		t.Error("without a dialect there is no error")
	}
	for _, d := range []Dialect{Postgres, MySQL, SQLite} {
		versions, err := MigrationSQL(Config{Dialect: d, Prefix: `o"d` + "`d_"})
		if err != nil || len(versions) != len(dialectOf(d).migrations()) {
			t.Fatalf("%s: %d versions, %v", d, len(versions), err)
		}
		for _, statement := range slices.Concat(versions...) {
			if strings.ContainsAny(statement, "{}?") {
				t.Errorf("%s: a mark is left in %s", d, statement)
			}
		}
		want := map[Dialect]string{Postgres: `"o""d` + "`d_messages\"", SQLite: `"o""d` + "`d_messages\"", MySQL: "`o\"d``d_messages`"}[d]
		if all := strings.Join(slices.Concat(versions...), "\n"); !strings.Contains(all, want) {
			t.Errorf("%s: %s is not in it", d, want)
		}
	}
}

package outboxtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/outbox"
	tsql "github.com/gotidings/tidings/transports/sql"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "outboxtest")
	if err != nil {
		panic(err)
	}
	builds = dir
	gorm := goleak.IgnoreTopFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1") // its cache of prepared statements is never closed
	goleak.VerifyTestMain(m, gorm, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// builds is a folder for programs that tests build.
var builds string

// deadline is how long a test waits for a signal. A busy machine is slow.
const deadline = 2 * time.Minute

// database is one of a test's own.
type database struct {
	*sql.DB
	dialect tsql.Dialect
	driver  string
	dsn     string
}

// databases open one of each kind.
var databases = map[string]func(tb testing.TB) database{
	"postgres": newPostgres, "mysql": newMySQL, "sqlite": newSQLite,
}

// onEach runs a test on every kind of database.
func onEach(t *testing.T, test func(t *testing.T, db database)) {
	t.Helper()
	for name, open := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func unique() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	return "tt_" + hex.EncodeToString(b)
}

func openDB(tb testing.TB, driver, dsn string) *sql.DB {
	tb.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	db.SetMaxOpenConns(20) // of a server that others use too
	db.SetMaxIdleConns(20)
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db
}

// newPostgres makes a schema, which is the connections' search_path.
func newPostgres(tb testing.TB) database {
	tb.Helper()
	u, err := url.Parse(testserver.Postgres(tb))
	if err != nil {
		tb.Fatal(err)
	}
	admin := openDB(tb, "pgx", u.String())
	schema := unique()
	mustExec(tb, admin, "create schema "+schema)
	tb.Cleanup(func() { mustExec(tb, admin, "drop schema "+schema+" cascade") })
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return database{openDB(tb, "pgx", u.String()), tsql.Postgres, "pgx", u.String()}
}

// newMySQL makes a database.
func newMySQL(tb testing.TB) database {
	tb.Helper()
	u, err := url.Parse(testserver.MySQL(tb))
	if err != nil {
		tb.Fatal(err)
	}
	host := u.Host
	if u.Port() == "" {
		host += ":3306"
	}
	dsn := func(name string) string { return fmt.Sprintf("%s@tcp(%s)/%s", u.User, host, name) }
	admin := openDB(tb, "mysql", dsn(""))
	name := unique()
	mustExec(tb, admin, "create database "+name)
	tb.Cleanup(func() { mustExec(tb, admin, "drop database "+name) })
	return database{openDB(tb, "mysql", dsn(name)), tsql.MySQL, "mysql", dsn(name)}
}

func newSQLite(tb testing.TB) database {
	tb.Helper()
	dsn := "file:" + filepath.Join(tb.TempDir(), "test.db") + "?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_txlock=immediate"
	return database{openDB(tb, "sqlite", dsn), tsql.SQLite, "sqlite", dsn}
}

func mustExec(tb testing.TB, db *sql.DB, query string, args ...any) {
	tb.Helper()
	if _, err := db.ExecContext(context.WithoutCancel(tb.Context()), query, args...); err != nil {
		tb.Errorf("%s: %v", query, err)
	}
}

// count runs a query that returns a number.
func count(tb testing.TB, db *sql.DB, query string) int {
	tb.Helper()
	var n int
	if err := db.QueryRowContext(tb.Context(), query).Scan(&n); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return n
}

// eventually waits until a query returns a number.
func eventually(tb testing.TB, db *sql.DB, want int, query string) {
	tb.Helper()
	until(tb, fmt.Sprintf("%s is %d", query, want), func() bool { return count(tb, db, query) == want })
}

// until waits for a condition that nothing signals.
func until(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	limit := time.After(deadline)
	for !condition() {
		select {
		case <-again.C:
		case <-limit:
			tb.Fatalf("not within %s: %s", deadline, what)
		}
	}
}

// ordered is an event of the tests.
type ordered struct {
	N   int    `json:"n"`
	Key string `json:"key,omitempty"`
}

func (ordered) EventType() string { return "order.created" }

func (e ordered) PartitionKey() string { return e.Key }

// newOutbox returns an outbox that the test's end closes.
func newOutbox(tb testing.TB, db database, change ...func(*outbox.Config)) *outbox.Outbox {
	tb.Helper()
	cfg := outbox.Config{DB: db.DB, Source: "shop"}
	for _, c := range change {
		c(&cfg)
	}
	ob, err := outbox.New(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := ob.Close(); err != nil {
			tb.Error(err)
		}
	})
	return ob
}

// commit publishes events in a transaction of their own.
func commit(tb testing.TB, ob *outbox.Outbox, events ...any) {
	tb.Helper()
	err := ob.InTx(context.WithoutCancel(tb.Context()), nil, func(ctx context.Context, tx *sql.Tx) error {
		return ob.Publish(ctx, tx, events...)
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// runRelay runs a relay until the test ends or stop is called.
func runRelay(tb testing.TB, ob *outbox.Outbox, cfg outbox.RelayConfig) (*outbox.Relay, func()) {
	tb.Helper()
	relay, err := outbox.NewRelay(ob, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			tb.Errorf("relay: %v", err)
		}
	}
	tb.Cleanup(stop)
	return relay, stop
}

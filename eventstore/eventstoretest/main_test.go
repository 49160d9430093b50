package eventstoretest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	tsql "github.com/gotidings/tidings/transports/sql"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

// server is a database that tests find.
type server struct {
	dialect tsql.Dialect
	env     string // has its URL
	local   string // the URL where it is not set
	command string // that provides one
	driver  string

	once sync.Once
	err  error
}

var postgresServer = &server{
	dialect: tsql.Postgres, env: "POSTGRES_URL", local: "postgres://postgres@127.0.0.1:5432/test?sslmode=disable", driver: "pgx",
	command: "docker compose --profile sql up -d postgres; or apt-get install postgresql",
}

var mysqlServer = &server{
	dialect: tsql.MySQL, env: "MYSQL_URL", local: "mysql://root@127.0.0.1:3306/test", driver: "mysql",
	command: "docker compose --profile sql up -d mariadb; or apt-get install mariadb-server",
}

func (s *server) url() string {
	if u := os.Getenv(s.env); u != "" {
		return u
	}
	return s.local
}

// dsn is the URL as the driver wants it.
func (s *server) dsn(tb testing.TB) string {
	tb.Helper()
	if s.dialect != tsql.MySQL {
		return s.url()
	}
	u, err := url.Parse(s.url())
	if err != nil {
		tb.Fatal(err)
	}
	return u.User.String() + "@tcp(" + u.Host + ")" + u.Path
}

// open returns a pool on the server, or skips the test when there is none.
func (s *server) open(tb testing.TB) *sql.DB {
	tb.Helper()
	db, err := sql.Open(s.driver, s.dsn(tb))
	if err != nil {
		tb.Fatal(err)
	}
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.err = db.PingContext(ctx)
	})
	if s.err != nil {
		_ = db.Close()
		if os.Getenv("REQUIRE_SERVICES") == "1" {
			tb.Fatalf("REQUIRE_SERVICES=1, and there is no %s: %v", s.dialect, s.err)
		}
		tb.Skipf("SKIPPED: no %s at %s: %v\nstart one: %s", s.dialect, s.env, s.err, s.command)
	}
	db.SetMaxIdleConns(20)
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db
}

// unique is a name that no other run has.
func unique() string {
	b := make([]byte, 5)
	_, _ = rand.Read(b)
	return "es_" + hex.EncodeToString(b)
}

// postgres returns a pool and a configuration with a schema of the test's own.
func postgres(tb testing.TB) (*sql.DB, tsql.Config) {
	tb.Helper()
	db := postgresServer.open(tb)
	schema := unique()
	tb.Cleanup(func() {
		if _, err := db.Exec(`drop schema if exists "` + schema + `" cascade`); err != nil { //nolint:noctx // the test's context has ended
			tb.Errorf("clean up: %v", err)
		}
	})
	return db, tsql.Config{Dialect: tsql.Postgres, Schema: schema, PollInterval: 50 * time.Millisecond}
}

// mariadb returns a pool and a configuration with a prefix of the test's own.
func mariadb(tb testing.TB) (*sql.DB, tsql.Config) {
	tb.Helper()
	db := mysqlServer.open(tb)
	prefix := unique() + "_"
	tb.Cleanup(func() {
		tables, err := tablesWith(db, prefix)
		if err != nil || len(tables) == 0 {
			tb.Errorf("clean up: %d tables, %v", len(tables), err)
			return
		}
		if _, err := db.Exec("drop table " + strings.Join(tables, ", ")); err != nil { //nolint:noctx // the same
			tb.Errorf("clean up: %v", err)
		}
	})
	return db, tsql.Config{Dialect: tsql.MySQL, Prefix: prefix, PollInterval: 50 * time.Millisecond}
}

// tablesWith lists the tables whose names begin so.
func tablesWith(db *sql.DB, prefix string) (tables []string, err error) {
	rows, err := db.Query("select table_name from information_schema.tables where table_schema = database() and table_name like ?", //nolint:noctx // the test's context has ended
		strings.ReplaceAll(prefix, "_", `\_`)+"%")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		tables = append(tables, "`"+name+"`")
	}
	return tables, rows.Err()
}

// sqliteFile returns a pool and a configuration on a file of the test's own.
func sqliteFile(tb testing.TB) (*sql.DB, tsql.Config) {
	tb.Helper()
	db, err := sql.Open("sqlite", sqliteDSN(filepath.Join(tb.TempDir(), "test.db")))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db, tsql.Config{Dialect: tsql.SQLite, PollInterval: 50 * time.Millisecond}
}

// sqliteDSN is what the documentation asks of a user's own DSN.
func sqliteDSN(path string) string {
	return "file:" + path + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate"
}

// newTransport returns a transport that the test's end closes.
func newTransport(tb testing.TB, db *sql.DB, cfg tsql.Config) *tsql.Transport {
	tb.Helper()
	tr, err := tsql.New(context.Background(), db, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := tr.Close(); err != nil {
			tb.Error(err)
		}
	})
	return tr
}

// Package testsql gives tests of the SQL transport, and of what stands on it, a place of their
// own in each database: a schema, a prefix or a file, which is left clean. Who uses it imports
// the drivers.
package testsql

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

	tsql "github.com/gotidings/tidings/transports/sql"
)

// Server is a database that tests find.
type Server struct {
	Dialect tsql.Dialect
	env     string // has its URL
	local   string // the URL where it is not set
	command string // that provides one
	driver  string

	once sync.Once
	err  error
}

// PostgresServer is where tests find PostgreSQL.
var PostgresServer = &Server{
	Dialect: tsql.Postgres, env: "POSTGRES_URL", local: "postgres://postgres@127.0.0.1:5432/test?sslmode=disable", driver: "pgx",
	command: "docker compose --profile sql up -d postgres; or apt-get install postgresql",
}

// MySQLServer is where tests find MySQL or MariaDB.
var MySQLServer = &Server{
	Dialect: tsql.MySQL, env: "MYSQL_URL", local: "mysql://root@127.0.0.1:3306/test", driver: "mysql",
	command: "docker compose --profile sql up -d mariadb; or apt-get install mariadb-server",
}

// URL is where the server is.
func (s *Server) URL() string {
	if u := os.Getenv(s.env); u != "" {
		return u
	}
	return s.local
}

// DSN is the URL as the driver wants it.
func (s *Server) DSN(tb testing.TB) string {
	tb.Helper()
	if s.Dialect != tsql.MySQL {
		return s.URL()
	}
	u, err := url.Parse(s.URL())
	if err != nil {
		tb.Fatal(err)
	}
	return u.User.String() + "@tcp(" + u.Host + ")" + u.Path
}

// Open returns a pool on the server, or skips the test when there is none.
func (s *Server) Open(tb testing.TB) *sql.DB {
	tb.Helper()
	db, err := sql.Open(s.driver, s.DSN(tb))
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
			tb.Fatalf("REQUIRE_SERVICES=1, and there is no %s: %v", s.Dialect, s.err)
		}
		tb.Skipf("SKIPPED: no %s at %s: %v\nstart one: %s", s.Dialect, s.env, s.err, s.command)
	}
	db.SetMaxIdleConns(20)
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db
}

// Unique is a name that no other run has.
func Unique() string {
	b := make([]byte, 5)
	_, _ = rand.Read(b)
	return "tt_" + hex.EncodeToString(b)
}

// Postgres returns a pool and a configuration with a schema of the test's own.
func Postgres(tb testing.TB) (*sql.DB, tsql.Config) {
	tb.Helper()
	db := PostgresServer.Open(tb)
	schema := Unique()
	tb.Cleanup(func() {
		if _, err := db.Exec(`drop schema if exists "` + schema + `" cascade`); err != nil { //nolint:noctx // the test's context has ended
			tb.Errorf("clean up: %v", err)
		}
	})
	return db, tsql.Config{Dialect: tsql.Postgres, Schema: schema, PollInterval: 50 * time.Millisecond}
}

// MariaDB returns a pool and a configuration with a prefix of the test's own.
func MariaDB(tb testing.TB) (*sql.DB, tsql.Config) {
	tb.Helper()
	db := MySQLServer.Open(tb)
	prefix := Unique() + "_"
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

// SQLite returns a pool and a configuration on a file of the test's own.
func SQLite(tb testing.TB) (*sql.DB, tsql.Config) {
	tb.Helper()
	db, err := sql.Open("sqlite", SQLiteDSN(filepath.Join(tb.TempDir(), "test.db")))
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

// SQLiteDSN is what the documentation asks of a user's own DSN, without waiting for the disk.
func SQLiteDSN(path string) string {
	return "file:" + path + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_txlock=immediate"
}

// NewTransport returns a transport that the test's end closes.
func NewTransport(tb testing.TB, db *sql.DB, cfg tsql.Config) *tsql.Transport {
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

// Servers are those with connections that can be cut.
var Servers = map[tsql.Dialect]*Server{tsql.Postgres: PostgresServer, tsql.MySQL: MySQLServer}

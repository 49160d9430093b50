package sqltest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

func (s *server) url() string {
	if u := os.Getenv(s.env); u != "" {
		return u
	}
	return s.local
}

// open returns a pool on the server, or skips the test when there is none.
func (s *server) open(tb testing.TB) *sql.DB {
	tb.Helper()
	db, err := sql.Open(s.driver, s.url())
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
	return "tt_" + hex.EncodeToString(b)
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

// withParameters adds to the parameters of a URL.
func withParameters(tb testing.TB, raw string, pairs ...string) string {
	tb.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		tb.Fatal(err)
	}
	q := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

var _ transports.Transport = (*tsql.Transport)(nil)

// servers are those with connections that can be cut.
var servers = map[tsql.Dialect]*server{tsql.Postgres: postgresServer}

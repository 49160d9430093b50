package sqltest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// A session in which a promise can't be kept is refused by New, of the transport and of the
// inbox, with the name of the setting and what to do.
func TestSettingsOfTheSession(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		backend, setting string
		want             []string
	}{
		"autocommit":         {"mysql", "autocommit=0", []string{"autocommit", "add autocommit=1"}},
		"not strict":         {"mysql", "sql_mode=%27%27", []string{"sql_mode", "STRICT_TRANS_TABLES"}},
		"safe updates":       {"mysql", "sql_safe_updates=1", []string{"sql_safe_updates"}},
		"select limit":       {"mysql", "sql_select_limit=10", []string{"sql_select_limit"}},
		"latin1":             {"mysql", "charset=latin1", []string{"character_set_client", "charset=utf8mb4"}},
		"utf8mb3":            {"mysql", "charset=utf8mb3", []string{"character_set_client", "charset=utf8mb4"}},
		"increment":          {"mysql", "auto_increment_increment=2", []string{"auto_increment_increment is 2"}},
		"synchronous_commit": {"postgres", "synchronous_commit=off", []string{"synchronous_commit", "ALTER ROLE"}},
		"sqlite journal":     {"sqlite", "_pragma=journal_mode(OFF)", []string{"journal_mode"}},
		"sqlite uncommitted": {"sqlite", "_pragma=read_uncommitted(1)", []string{"read_uncommitted"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := backends[c.backend](t)
			if _, err := tsql.New(t.Context(), b.DB, b.cfg); err != nil { // makes the tables, and is fine
				t.Fatal(err)
			}
			db := b.with(t, c.setting)
			_, err := tsql.New(t.Context(), db, b.cfg)
			wantWords(t, "New", err, c.want)
			if name == "increment" {
				return // which the inbox has no use for
			}
			_, err = inbox.New(t.Context(), inbox.Config{DB: db, Schema: b.cfg.Schema, Prefix: b.cfg.Prefix})
			wantWords(t, "inbox.New", err, c.want)
		})
	}
}

func wantWords(t *testing.T, what string, err error, words []string) {
	t.Helper()
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v; want %q in it", what, err, word)
		}
	}
}

// with opens the database with one more setting in its DSN.
func (b backend) with(t *testing.T, setting string) *sql.DB {
	t.Helper()
	var driver, dsn string
	switch b.cfg.Dialect {
	case tsql.Postgres:
		driver, dsn = "pgx", testsql.PostgresServer.URL()
		dsn += map[bool]string{true: "&", false: "?"}[strings.Contains(dsn, "?")] + setting
	case tsql.MySQL:
		driver, dsn = "mysql", testsql.MySQLServer.DSN(t)+"?"+setting
	case tsql.SQLite:
		driver, dsn = "sqlite", filepath.Join(t.TempDir(), "other.db") // the mode of a file that is open can't be changed
		dsn = "file:" + dsn + "?" + strings.Replace(setting, "_pragma=", "_pragma=busy_timeout(10000)&_pragma=", 1)
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// By URL the sessions get the settings that they need, whatever the defaults of the server.
func TestOpenSetsTheSession(t *testing.T) {
	t.Parallel()
	b := backends["mysql"](t)
	tr, err := transports.Open(t.Context(), b.url(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tr.Close() }()
	db := tr.(*tsql.Transport).Log().DB()
	var autocommit, safe int
	var mode string
	if err := db.QueryRowContext(t.Context(), "select @@autocommit, @@sql_mode, @@sql_safe_updates").Scan(&autocommit, &mode, &safe); err != nil {
		t.Fatal(err)
	}
	if autocommit != 1 || mode != "STRICT_TRANS_TABLES" || safe != 0 {
		t.Errorf("autocommit is %d, sql_mode %q, sql_safe_updates %d", autocommit, mode, safe)
	}
}

// records keeps what is logged.
type records struct {
	slog.Handler
	mu   sync.Mutex
	text strings.Builder
}

func (r *records) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.text, "%s %s", record.Level, record.Message)
	record.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&r.text, " %s", a); return true })
	r.text.WriteByte('\n')
	return nil
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// setBack are statements that have the next ids begin below those that were passed, and
// repair what the error says.
var setBack = map[string]map[string]struct{ breaks, repairs, advice string }{
	"postgres": {
		"set back": {
			`delete from {messages}; select setval('{sequence}', 10)`, `select setval('{sequence}', 50)`, `', 50)`,
		},
		"restarted": {
			`truncate {messages} restart identity`, `select setval('{sequence}', 50)`, `', 50)`,
		},
		"cache": {`alter sequence {sequence} cache 20`, `alter sequence {sequence} cache 1`, "CACHE 1"},
	},
	"mysql": {
		"set back": {
			`delete from {messages}; alter table {messages} auto_increment = 11`, `alter table {messages} auto_increment = 51`, "AUTO_INCREMENT = 51",
		},
		"truncated": {`truncate {messages}`, `alter table {messages} auto_increment = 51`, "AUTO_INCREMENT = 51"},
	},
	"sqlite": {
		"set back": {
			`delete from {messages}; update sqlite_sequence set seq = 10 where name = '{messages}'`,
			`update sqlite_sequence set seq = 50 where name = '{messages}'`, "to 50",
		},
	},
}

// Ids that begin again, at the start or while the process runs, hide what is published from
// every subscription. It is refused, logged and not ready, until it is repaired as it says.
func TestIDsSetBack(t *testing.T) {
	t.Parallel()
	for name, cases := range setBack {
		for what, c := range cases {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				b := backends[name](t)
				log := &records{}
				b.cfg.Logger = slog.New(log)
				tr := testsql.NewTransport(t, b.DB, b.cfg)
				ch := subscribe(t.Context(), t, tr, "s", 50, "a")
				publish(t, tr, "a", numbers(1, 50)...)
				ackAll(t, ch, numbers(1, 50)...)
				eventually(t, b.DB, 0, "select count(*) from "+b.table("claims"))
				b.run(t, c.breaks)

				end := time.Now().Add(deadline)
				for {
					err := tr.PublishBatch(t.Context(), outgoing("a", "unseen"))
					if errors.Is(err, tsql.ErrUnseen) {
						break
					}
					if time.Now().After(end) {
						t.Fatalf("publish: %v; want ErrUnseen", err)
					}
					<-time.After(100 * time.Millisecond)
				}
				if err := tr.Ping(t.Context()); !errors.Is(err, tsql.ErrUnseen) {
					t.Errorf("ping: %v; want ErrUnseen", err)
				}
				if said := log.String(); !strings.Contains(said, "ERROR") || !strings.Contains(said, c.advice) {
					t.Errorf("logged %q; want %q in it", said, c.advice)
				}
				_, err := tsql.New(t.Context(), b.DB, b.cfg)
				if !errors.Is(err, tsql.ErrUnseen) {
					t.Errorf("New: %v; want ErrUnseen", err)
				}
				wantWords(t, "New", err, []string{c.advice})

				b.run(t, "delete from {messages} where event_id = 'unseen'; "+c.repairs)
				for tr.PublishBatch(t.Context(), outgoing("a", "seen")) != nil {
					if time.Now().After(end) {
						t.Fatal("still refused")
					}
					<-time.After(100 * time.Millisecond)
				}
				for { // what was published before it was noticed may have been delivered
					msg := receive(t, ch)
					msg.Ack()
					if msg.UUID == "seen" {
						break
					}
				}
			})
		}
	}
}

// run executes statements in which tables are in braces.
func (b backend) run(t *testing.T, statements string) {
	t.Helper()
	for query := range strings.SplitSeq(statements, "; ") {
		for _, table := range []string{"messages", "log", "gates", "gaps", "subscriptions", "migrations"} {
			query = strings.ReplaceAll(query, "{"+table+"}", b.table(table))
		}
		execute(t, b.DB, strings.ReplaceAll(query, "{sequence}", b.cfg.Schema+".tidings_messages_id_seq"))
	}
}

// A test suite that empties every table takes rows away that are made with the tables. New
// and Subscribe say so, and do not wait.
func TestEmptiedTables(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		for _, table := range []string{"log", "gates", "migrations"} {
			if table == "gates" && name != "mysql" || table == "log" && name == "sqlite" { // which needs no row of it
				continue
			}
			t.Run(name+"/"+table, func(t *testing.T) {
				t.Parallel()
				b := open(t)
				tr := testsql.NewTransport(t, b.DB, b.cfg)
				b.run(t, "delete from {"+table+"}")
				if _, err := tsql.New(t.Context(), b.DB, b.cfg); name != "mysql" || table != "migrations" { // it makes what is missing again
					wantWords(t, "New", err, []string{"lost its rows", "drop all tables", b.table(table)[strings.LastIndexByte(b.table(table), '.')+1:]})
				} else if err != nil {
					t.Errorf("New: %v", err)
				}
				if table == "migrations" {
					return // nothing is read from it later
				}
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				_, err := tr.Subscribe(ctx, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1})
				if table == "log" && !errors.Is(err, tsql.ErrUnseen) {
					t.Errorf("subscribe: %v; want ErrUnseen", err)
				}
				end := time.Now().Add(deadline)
				for !errors.Is(tr.PublishBatch(ctx, outgoing("a", "1")), tsql.ErrUnseen) {
					if time.Now().After(end) {
						t.Fatal("publish is not refused")
					}
					<-time.After(100 * time.Millisecond)
				}
			})
		}
	}
}

// Gaps that were copied from another cluster are bound by its transaction ids, which this one
// may not reach for years. Nothing that was open there can be committed here.
func TestGapsOfAnotherCluster(t *testing.T) {
	t.Parallel()
	b := backends["postgres"](t)
	tr := testsql.NewTransport(t, b.DB, b.cfg)
	publish(t, tr, "a", numbers(1, 10)...)
	ch := subscribe(t.Context(), t, tr, "s", 10, "a")
	execute(t, b.DB, "delete from "+b.table("messages")+" where id in (3, 4)")
	execute(t, b.DB, "insert into "+b.table("gaps")+" (first, last, bound) values (3, 4, (pg_current_xact_id()::text::bigint + 4000000000)::text::xid8)")
	publish(t, tr, "a", "11")
	ackInOrder(t, ch, "11")
	eventually(t, b.DB, 0, "select count(*) from "+b.table("gaps"))
	settled, frontier, err := tr.Log().Settled(t.Context())
	if err != nil || settled != frontier || frontier != 11 {
		t.Errorf("settled up to %d of %d, %v; want 11", settled, frontier, err)
	}
}

package sqltest

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

const password = "hunter2-secret"

// wantFault wants an error with these words and without the password, and soon: it is not
// one of those that Open waits for to end.
func wantFault(t *testing.T, what string, err error, took time.Duration, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error; want one with %q", what, words)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %q is missing in: %v", what, word, err)
		}
	}
	if strings.Contains(err.Error(), password) {
		t.Errorf("%s: the password is in: %v", what, err)
	}
	if took > 5*time.Second { // of the 10 that Open would wait
		t.Errorf("%s: it took %s", what, took)
	}
}

// as is a user of the server that a test has made.
type as struct {
	name, url string
	settings  []string // of the URL
}

func (u as) open(t *testing.T, settings ...string) (tr transports.Transport, took time.Duration, err error) {
	t.Helper()
	start := time.Now()
	tr, err = transports.Open(context.WithoutCancel(t.Context()), withParameters(t, u.url, append(settings, u.settings...)...))
	if err == nil {
		t.Cleanup(func() {
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return tr, time.Since(start), err
}

func (u as) wantRefusal(t *testing.T, what string, settings []string, words ...string) {
	t.Helper()
	_, took, err := u.open(t, settings...)
	wantFault(t, what, err, took, words...)
}

// wantReadOnly wants clear errors where the user may only read.
func (u as) wantReadOnly(t *testing.T, words ...string) {
	t.Helper()
	tr, _, err := u.open(t)
	if err != nil {
		t.Fatalf("with the right to read: %v", err)
	}
	start := time.Now()
	_, err = tr.Subscribe(t.Context(), transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1})
	wantFault(t, "subscribe", err, time.Since(start), words...)
	start = time.Now()
	err = tr.Publish("a", newMessage("1"))
	wantFault(t, "publish", err, time.Since(start), append(words, "tidings_messages")...)
}

// wantWorking wants the rights of the documentation to be enough.
func (u as) wantWorking(t *testing.T) {
	t.Helper()
	tr, _, err := u.open(t, "migrate", "false")
	if err != nil {
		t.Fatalf("with the rights of the documentation: %v", err)
	}
	ch, err := tr.Subscribe(t.Context(), transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Publish("a", newMessage("1"), newMessage("2")); err != nil {
		t.Fatal(err)
	}
	ackInOrder(t, ch, "1", "2")
	if err := tr.(transports.SubscriptionRemover).RemoveSubscription(t.Context(), "s"); err != nil {
		t.Error(err)
	}
}

// userOf is the URL of a server as another user.
func userOf(t *testing.T, s *testsql.Server, name string) *url.URL {
	t.Helper()
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(name, password)
	return u
}

func TestMissingRightsOnPostgres(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.Postgres(t)
	role := testsql.Unique()
	execute(t, db, `create role `+role+` login password '`+password+`'`)
	t.Cleanup(func() {
		for _, query := range []string{`drop owned by ` + role, `drop role ` + role} {
			if _, err := db.Exec(query); err != nil { //nolint:noctx // the test's context has ended
				t.Error(err)
			}
		}
	})
	user := as{role, userOf(t, testsql.PostgresServer, role).String(), []string{"schema", cfg.Schema}}
	schema := `"` + cfg.Schema + `"`
	noMigrate := []string{"migrate", "false"}
	const denied = "permission denied for "
	user.wantRefusal(t, "no right to make a schema", nil, "rights to create", "NoMigrate", denied+"database")
	if err := tsql.Migrate(t.Context(), db, cfg); err != nil {
		t.Fatal(err)
	}
	user.wantRefusal(t, "no right to a schema", nil, "rights to create", denied+"schema "+cfg.Schema)
	execute(t, db, `grant usage on schema `+schema+` to `+role)
	user.wantRefusal(t, "no right to read", noMigrate, "tidings_migrations", denied+"table")
	execute(t, db, `grant select on `+schema+`.tidings_migrations to `+role)
	user.wantRefusal(t, "no right to other tables", noMigrate, "can't be read", denied+"table")
	execute(t, db, `grant select on all tables in schema `+schema+` to `+role)
	user.wantRefusal(t, "no right to the sequence", noMigrate, denied+"sequence", "tidings_messages_id_seq", "GRANT SELECT ON SEQUENCE")
	execute(t, db, `grant select on sequence `+schema+`.tidings_messages_id_seq to `+role)
	user.wantReadOnly(t, denied+"table")
	execute(t, db, `grant insert, update, delete on all tables in schema `+schema+` to `+role)
	user.wantWorking(t)
}

func TestMissingRightsOnMySQL(t *testing.T) {
	t.Parallel()
	db := testsql.MySQLServer.Open(t)
	name := testsql.Unique()
	execute(t, db, "create user "+name+" identified by '"+password+"'")
	execute(t, db, "create database "+name)
	t.Cleanup(func() {
		for _, query := range []string{"drop user " + name, "drop database " + name} {
			if _, err := db.Exec(query); err != nil { //nolint:noctx // the test's context has ended
				t.Error(err)
			}
		}
	})
	u := userOf(t, testsql.MySQLServer, name)
	u.Path = name
	user := as{name, u.String(), nil}
	noMigrate := []string{"migrate", "false"}
	user.wantRefusal(t, "no right to the database", nil, "connect", "Access denied", name)
	execute(t, db, "grant select on "+name+".* to "+name)
	user.wantRefusal(t, "no right to make tables", nil, "rights to create", "NoMigrate", "CREATE command denied", "tidings_migrations")
	user.wantRefusal(t, "no tables", noMigrate, "run Migrate", "tidings_migrations")
	execute(t, db, "grant create, insert on "+name+".* to "+name)
	if _, _, err := user.open(t); err != nil { // makes the tables
		t.Fatal(err)
	}
	execute(t, db, "revoke create, insert on "+name+".* from "+name)
	user.wantReadOnly(t, "command denied")
	execute(t, db, "grant insert, update, delete on "+name+".* to "+name)
	user.wantWorking(t)
}

// What is wrong with a URL is said at once, and without the password.
func TestWrongURL(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*testsql.Server{"postgres": testsql.PostgresServer, "mysql": testsql.MySQLServer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.Open(t) // or skips
			nobody := userOf(t, s, testsql.Unique())
			as{url: nobody.String()}.wantRefusal(t, "unknown user", nil, "connect", nobody.User.Username())
			nowhere := userOf(t, s, "root")
			nowhere.Path = "/" + testsql.Unique()
			as{url: nowhere.String()}.wantRefusal(t, "unknown user and database", nil, "connect")
			as{url: nobody.String()}.wantRefusal(t, "a parameter with a wrong value", []string{"lease", "soon"}, "parameter lease")
			as{url: nobody.String()}.wantRefusal(t, "a driver's parameter with a wrong value", []string{"sslmode", "perhaps", "tls", "perhaps"}, "perhaps")
		})
	}
}

// Tables of somebody else that have the names of ours are left alone, and named.
func TestTablesOfSomebodyElse(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			if b.cfg.Schema != "" {
				execute(t, b, `create schema "`+b.cfg.Schema+`"`)
			}
			tables := []string{"messages", "log", "gaps", "late", "subscriptions", "bindings", "claims", "deliveries", "scheduled", "migrations", "maintenance"}
			if b.cfg.Dialect == tsql.MySQL {
				tables = append(tables, "gates")
			}
			for _, table := range tables {
				cfg := b.cfg
				cfg.Prefix += table[:3] + "_" // each has the rest to itself
				theirs := cfg.Prefix + table
				qualified := theirs
				if cfg.Schema != "" {
					qualified = `"` + cfg.Schema + `".` + theirs
				}
				execute(t, b, "create table "+qualified+" (theirs integer)")
				execute(t, b, "insert into "+qualified+" values (7)")
				start := time.Now()
				_, err := tsql.New(t.Context(), b.DB, cfg)
				wantFault(t, table, err, time.Since(start), theirs)
				if n := scalar(t, b.DB, "select theirs from "+qualified); n != 7 {
					t.Errorf("%s: its row has %d; want 7", table, n)
				}
			}
		})
	}
}

// A message that the server would take for too large a packet fails alone, and costs
// nobody the connection.
func TestPacketLimit(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.MariaDB(t)
	packet := scalar(t, db, "select @@max_allowed_packet")
	if packet > 64<<20 {
		t.Skipf("SKIPPED: the server takes packets of %d bytes", packet)
	}
	cfg.MaxMessageBytes = int(packet) - 1<<20 // MySQL takes 64 MiB, which is more than the default
	b := backend{db, cfg}
	b.SetMaxOpenConns(1)
	connection := scalar(t, db, "select connection_id()")
	tr := testsql.NewTransport(t, db, cfg)
	long := newMessage("long metadata")
	long.Metadata["long"] = strings.Repeat("x", int(packet))
	both := newMessage("half payload, half metadata")
	both.Payload = make([]byte, packet-2<<20)
	both.Metadata["long"] = strings.Repeat("x", 2<<20)
	large := newMessage("large payload")
	large.Payload = make([]byte, packet)
	batch := outgoing("a", "1", "2")
	for _, msg := range []*transports.Outgoing{{Message: long}, {Message: both}, {Message: large}} {
		batch = append(batch, transports.Outgoing{Topic: "a", Message: msg.Message})
	}
	fits := newMessage("fits")
	fits.Payload = make([]byte, packet-1<<20)
	fits.Metadata["long"] = strings.Repeat("x", 100<<10)
	want := []string{"1", "2"}
	if packet <= 16<<20 { // a larger one takes minutes with the race detector on a busy machine
		batch = append(batch, transports.Outgoing{Topic: "a", Message: fits})
		want = append(want, "fits")
	}

	ch, err := tr.Subscribe(t.Context(), transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1})
	if err != nil {
		t.Fatal(err)
	}
	err = tr.PublishBatch(t.Context(), batch)
	var failed *transports.PublishError
	if !errors.As(err, &failed) || len(failed.Failures) != 3 || !errors.Is(err, transports.ErrTooLarge) {
		t.Fatalf("publish: %v; want the three of them to be too large", err)
	}
	for i, f := range failed.Failures {
		if f.Index != 2+i || !errors.Is(f.Err, transports.ErrTooLarge) {
			t.Errorf("failure %d is of message %d: %v", i, f.Index, f.Err)
		}
	}
	ackInOrder(t, ch, want...)
	if now := scalar(t, db, "select connection_id()"); now != connection {
		t.Error("the connection was lost")
	}
}

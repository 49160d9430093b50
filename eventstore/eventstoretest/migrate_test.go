package eventstoretest

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"testing"

	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// What MigrationSQL returns makes the tables, and a service that may make none then works
// with them: index, seals and replays.
func TestMigrationSQL(t *testing.T) {
	t.Parallel()
	for name, open := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, cfg := open(t)
			testsql.NewTransport(t, db, cfg) // the log's own tables
			cfg.NoMigrate = true
			tr := testsql.NewTransport(t, db, cfg)
			statements, err := eventstore.MigrationSQL(cfg)
			if err != nil {
				t.Fatal(err)
			}
			for _, statement := range statements {
				if _, err := db.ExecContext(t.Context(), statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			before := tables(t, db, cfg)

			store := newStore(t, eventstore.Config{Log: tr, Index: true, Seal: true, FollowInterval: -1})
			w := &world{store: store, target: tr, log: tr, db: db, cfg: cfg}
			w.add = func(batch ...transports.Outgoing) error { return tr.PublishBatch(t.Context(), batch) }
			w.publish(t, event("a", "1", "subject", strings.Repeat("s", 300)), event("a", "2"))
			page, err := store.List(t.Context(), eventstore.Listing{Query: eventstore.Query{Subject: strings.Repeat("s", 300)}})
			if err != nil || len(page.Events) != 1 {
				t.Errorf("the index has %q, %v", ids(page.Events), err)
			}
			if r := w.verify(t, eventstore.VerifyOptions{}); r.Damaged != 0 || r.Events != 2 {
				t.Errorf("verify: %+v", r)
			}
			if p, err := store.Replay(t.Context(), tr, eventstore.Replay{Subscription: "model", Declare: []string{"a"}}); err != nil || p.Sent != 2 {
				t.Errorf("replay: %+v, %v", p, err)
			}
			if after := tables(t, db, cfg); !slices.Equal(before, after) {
				t.Errorf("tables before %q\nand after %q", before, after)
			}
		})
	}
}

// tables lists those of a configuration.
func tables(t *testing.T, db *sql.DB, cfg tsql.Config) []string {
	t.Helper()
	query, args := `select table_name from information_schema.tables where table_schema = $1 order by 1`, []any{cfg.Schema}
	switch cfg.Dialect {
	case tsql.MySQL:
		query, args = `select table_name from information_schema.tables where table_schema = database() and left(table_name, ?) = ? order by 1`, []any{len(cfg.Prefix), cfg.Prefix}
	case tsql.SQLite:
		query, args = `select name from sqlite_master where type = 'table' order by 1`, nil
	}
	rows, err := db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if len(names) < 3 {
		t.Fatalf("there are only the tables %q", names)
	}
	return names
}

// Without the tables, a service that may make none is told what to do, and an unknown dialect
// is an error.
func TestMigrationSQLErrors(t *testing.T) {
	t.Parallel()
	if statements, err := eventstore.MigrationSQL(tsql.Config{}); err == nil || statements != nil {
		t.Errorf("without a dialect: %q, %v", statements, err)
	}
	db, cfg := testsql.SQLite(t)
	testsql.NewTransport(t, db, cfg)
	cfg.NoMigrate = true
	tr := testsql.NewTransport(t, db, cfg)
	before := tables(t, db, cfg)
	_, err := eventstore.New(context.Background(), eventstore.Config{Log: tr, Index: true})
	if err == nil || !strings.Contains(err.Error(), "MigrationSQL") {
		t.Errorf("New makes tables, or does not say what to do: %v", err)
	}
	if after := tables(t, db, cfg); !slices.Equal(before, after) {
		t.Errorf("tables before %q\nand after %q", before, after)
	}
}

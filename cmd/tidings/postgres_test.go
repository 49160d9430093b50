package main

import (
	"context"
	"database/sql"
	"net/url"
	"testing"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/internal/testserver"
)

// TestScriptsPostgres runs the scripts that are for every transport, each in a schema of
// its own, and one with a role that has no rights there.
func TestScriptsPostgres(t *testing.T) { //nolint:tparallel // testscript makes parallel subtests
	t.Parallel()
	runScripts(t, postgresBackend(t), "testdata/both", "testdata/postgres")
}

func postgresBackend(t *testing.T) backend {
	t.Helper()
	address := testserver.Postgres(t)
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return backend{
		name: "postgres",
		transport: func(t *testing.T, _ string) string {
			t.Helper()
			name := "cli_" + events.NewID()[24:] // the random part
			if _, err := db.ExecContext(t.Context(), `create role `+name+` login password 'topsecret'`); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_, err := db.ExecContext(context.Background(), `drop schema if exists `+name+` cascade; drop role `+name)
				if err != nil {
					t.Errorf("clean up: %v", err)
				}
			})
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			query := u.Query()
			query.Set("schema", name)
			u.RawQuery = query.Encode()
			return u.String()
		},
		management: func(*testing.T) string { return "" },
	}
}

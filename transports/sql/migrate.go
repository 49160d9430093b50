package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gotidings/tidings/internal/dberr"
)

// Migrate makes the tables, or brings them up to date. It may run in several processes at
// a time, and does nothing when there is nothing to do. [New] calls it unless
// [Config.NoMigrate] is set.
func Migrate(ctx context.Context, db *sql.DB, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	s, err := newStore(ctx, db, cfg.withDefaults())
	if err != nil {
		return err
	}
	return s.migrate(ctx)
}

// MigrationSQL returns the statements that make the tables in an empty database, for
// teams that run their own migrations. Each version is a list of statements, the first
// one for version 1, and ends by noting that it was run.
func MigrationSQL(cfg Config) ([][]string, error) {
	if cfg.Dialect == "" {
		return nil, fmt.Errorf("the field Dialect is empty; it takes %q, %q or %q", Postgres, MySQL, SQLite)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	d := dialectOf(cfg.Dialect)
	write := writer(d, cfg.Schema, cfg.Prefix)
	var versions [][]string
	for i, version := range d.migrations() {
		var statements []string
		if i == 0 {
			statements = append(statements, write(migrationsTable))
		}
		for _, statement := range version {
			statements = append(statements, write(statement))
		}
		note := strings.Replace(noteVersion, "?", strconv.Itoa(i+1), 1)
		versions = append(versions, append(statements, write(note)))
	}
	return versions, nil
}

const (
	migrationsTable = `create table if not exists {migrations} (version bigint primary key, applied_ms bigint not null)`
	noteVersion     = `insert into {migrations} (version, applied_ms) values (?, {now})`
)

func (s *store) migrate(ctx context.Context) error {
	wanted := s.dialect.migrations()
	if version, err := s.version(ctx, s.db); err == nil && version >= len(wanted) {
		return nil // the usual case needs no right to create anything, and no lock
	}
	err := s.dialect.migrate(ctx, s, func(q Tx) error {
		if _, err := s.exec(ctx, q, migrationsTable); err != nil {
			return err
		}
		version, err := s.version(ctx, q)
		if err != nil {
			return err
		}
		for ; version < len(wanted); version++ {
			for _, statement := range wanted[version] {
				if _, err := s.exec(ctx, q, statement); err != nil {
					what, _, _ := strings.Cut(s.write(statement), " (")
					return fmt.Errorf("version %d: %s: %w", version+1, what, err)
				}
			}
			if _, err := s.exec(ctx, q, noteVersion, version+1); err != nil {
				return fmt.Errorf("version %d: %w", version+1, err)
			}
		}
		return nil
	})
	switch {
	case err != nil && s.migrated(ctx):
		return errors.Join(s.emptied("migrations"), err)
	case err != nil && dberr.Denied(err):
		return fmt.Errorf("migrate needs the rights to create and to write tables; if others make them, see Config.NoMigrate: %w", err)
	case err != nil:
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// migrated reports whether the tables are there although their version is not.
func (s *store) migrated(ctx context.Context) bool {
	version, err := s.version(ctx, s.db)
	if err != nil || version != 0 {
		return false
	}
	_, err = s.one(ctx, s.db, nil, "select "+columns["messages"]+" from {messages} where 1 = 0")
	return err == nil
}

// version returns the version of the tables, 0 when there are none.
func (s *store) version(ctx context.Context, q Tx) (int, error) {
	var version sql.NullInt64
	_, err := s.one(ctx, q, []any{&version}, `select max(version) from {migrations}`)
	if err != nil {
		return 0, fmt.Errorf("the table %s can't be read: %w", s.write("{migrations}"), err)
	}
	return int(version.Int64), nil
}

// columns are what the queries use of each table, to find one of the same name that is
// somebody else's.
var columns = map[string]string{
	"messages":      "id, topic, event_id, source, partition_key, metadata, payload, published_ms",
	"log":           "frontier, turn",
	"subscriptions": "id, name, version, position, late_position, ephemeral, owner, lease_ms, created_ms, seen_ms",
	"bindings":      "subscription_id, pattern, since, since_late",
	"claims":        "id, subscription_id, late, first, last, bound, settled, owner, lease_ms",
	"deliveries":    "id, subscription_id, state, due_ms, owner, topic, event_id, source, event_hash, metadata, payload, created_ms",
	"scheduled":     "id, due_ms, topic, event_id, source, partition_key, metadata, payload",
	"maintenance":   "owner, lease_ms, turn",
	"gaps":          "id, first, last",
	"late":          "n, id",
	"gates":         "id", // MySQL only
}

// verify looks whether the tables are there and are ours.
func (s *store) verify(ctx context.Context) error {
	version, err := s.version(ctx, s.db)
	switch {
	case err != nil && dberr.Denied(err):
		return err
	case err != nil:
		return fmt.Errorf("run Migrate, or leave Config.NoMigrate unset: %w", err)
	}
	if wanted := len(s.dialect.migrations()); version < wanted {
		return fmt.Errorf("the tables are of version %d, and %d is needed; run Migrate, or leave Config.NoMigrate unset", version, wanted)
	}
	for table, list := range columns {
		if table == "gates" && s.cfg.Dialect != MySQL {
			continue
		}
		_, err := s.one(ctx, s.db, nil, "select "+list+" from {"+table+"} where 1 = 0")
		switch {
		case err != nil && dberr.Denied(err):
			return fmt.Errorf("the table %s can't be read: %w", s.write("{"+table+"}"), err)
		case err != nil:
			return fmt.Errorf("the table %s is not one of this library, or a column of it is missing: %w", s.write("{"+table+"}"), err)
		}
	}
	return nil
}

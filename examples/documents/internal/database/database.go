// Package database opens the database of the example, SQLite or PostgreSQL, and makes its
// tables.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	tsql "github.com/gotidings/tidings/transports/sql"
)

const (
	connections    = 20                     // from one process
	connectTimeout = 10 * time.Second       // also the patience with a database that is starting
	retryInterval  = 200 * time.Millisecond // while it is
)

// Source makes of a URL, postgres:// or sqlite:FILE, what its driver takes. Its errors do
// not quote the URL, which may have a password.
func Source(rawURL string) (dialect tsql.Dialect, driver, dsn string, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", "", "", errors.New("it is not a URL")
	}
	switch u.Scheme {
	case "postgres", "postgresql":
		return tsql.Postgres, "pgx", rawURL, nil
	case "sqlite":
		file := u.Opaque + u.Path
		if file == "" {
			return "", "", "", errors.New("it has no file; it looks like sqlite:documents.db")
		}
		// Transactions lock at their beginning: one that reads first and then finds another
		// writer could not wait for it.
		settings := url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)"}}
		escaped := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(file)
		return tsql.SQLite, "sqlite", "file:" + escaped + "?" + settings.Encode(), nil
	}
	return "", "", "", fmt.Errorf("its scheme is %q; it takes postgres or sqlite", u.Scheme)
}

// Open opens the database of a URL and runs the statements of schema, which several
// processes may do at once.
func Open(ctx context.Context, rawURL string, schema ...string) (db *sql.DB, dialect tsql.Dialect, err error) {
	dialect, driver, dsn, err := Source(rawURL)
	if err != nil {
		return nil, "", err
	}
	db, err = sql.Open(driver, dsn)
	if err != nil {
		return nil, "", errors.New("the URL of the database is malformed") // the driver's error quotes the password
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err = reach(ctx, db); err == nil {
		err = migrate(ctx, db, dialect, schema)
	}
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("database: %w", err), db.Close())
	}
	return db, dialect, nil
}

// reach waits until the database answers.
func reach(ctx context.Context, db *sql.DB) error {
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(retryInterval):
		case <-ctx.Done():
			return err
		}
	}
}

func migrate(ctx context.Context, db *sql.DB, dialect tsql.Dialect, schema []string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing to do after the commit
	if dialect == tsql.Postgres {
		// Two "create table if not exists" at once can fail in PostgreSQL.
		const lock = 0x646f6373 // "docs", a number that nobody else takes
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("select pg_advisory_xact_lock(%d)", lock)); err != nil {
			return err
		}
	}
	for _, statement := range schema {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("make the tables: %w", err)
		}
	}
	return tx.Commit()
}

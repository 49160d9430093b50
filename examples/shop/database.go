package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	tsql "github.com/gotidings/tidings/transports/sql"
)

const (
	connections    = 20               // to the database, from one process
	connectTimeout = 10 * time.Second // also the patience with a database that is starting
)

// database is the shop's database, of any of the three kinds.
type database struct {
	*sql.DB
	dialect tsql.Dialect
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// openDatabase opens the database of a URL and makes the shop's tables.
func openDatabase(ctx context.Context, rawURL string) (*database, error) {
	dialect, driver, dsn, err := dataSource(rawURL)
	if err != nil {
		return nil, err
	}
	handle, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, errors.New("the URL of the database is malformed") // the driver's error quotes the password
	}
	handle.SetMaxOpenConns(connections)
	handle.SetMaxIdleConns(connections)
	db := &database{DB: handle, dialect: dialect}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err = db.reach(ctx); err == nil {
		err = db.migrate(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database: %w", err), db.Close())
	}
	return db, nil
}

// reach waits until the database answers.
func (db *database) reach(ctx context.Context) error {
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// dataSource makes of a URL what its driver takes.
func dataSource(rawURL string) (dialect tsql.Dialect, driver, dsn string, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", "", "", errors.New("it is not a URL") // the error of url.Parse quotes the password
	}
	switch u.Scheme {
	case "postgres", "postgresql":
		return tsql.Postgres, "pgx", rawURL, nil
	case "mysql":
		cfg := mysql.NewConfig()
		cfg.Net, cfg.Addr, cfg.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
		cfg.User = u.User.Username()
		cfg.Passwd, _ = u.User.Password()
		cfg.InterpolateParams = true // one round trip a statement
		dsn = cfg.FormatDSN() + "&" + u.RawQuery
		if _, err := mysql.ParseDSN(dsn); err != nil {
			return "", "", "", errors.New("it has parameters that the driver does not take")
		}
		return tsql.MySQL, "mysql", dsn, nil
	case "sqlite":
		file := u.Opaque + u.Path
		if file == "" {
			return "", "", "", errors.New("it has no file; it looks like sqlite:shop.db")
		}
		// Transactions lock at their beginning: one that reads first and then finds
		// another writer could not wait for it.
		pragmas := url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)"}}
		escaped := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(file)
		return tsql.SQLite, "sqlite", "file:" + escaped + "?" + pragmas.Encode(), nil
	}
	return "", "", "", fmt.Errorf("its scheme is %q; it takes postgres, mysql or sqlite", u.Scheme)
}

// q makes of a query with ? what the database takes.
func (db *database) q(query string) string {
	if db.dialect != tsql.Postgres {
		return query
	}
	parts := strings.Split(query, "?")
	var b strings.Builder
	for i, part := range parts[:len(parts)-1] {
		b.WriteString(part + "$" + strconv.Itoa(i+1))
	}
	return b.String() + parts[len(parts)-1]
}

// insert inserts a row and returns the id that the database gave it.
func (db *database) insert(ctx context.Context, q querier, query string, args ...any) (id int64, err error) {
	if db.dialect == tsql.Postgres {
		err = q.QueryRowContext(ctx, db.q(query)+" returning id", args...).Scan(&id)
		return id, err
	}
	result, err := q.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.LastInsertId()
}

// exec runs a statement that changes rows.
func (db *database) exec(ctx context.Context, q querier, query string, args ...any) error {
	_, err := q.ExecContext(ctx, db.q(query), args...)
	return err
}

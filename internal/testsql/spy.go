package testsql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"
)

// Spied returns a pool on the database of a DSN, with the driver of db, that calls before with
// each statement before it is executed. The statement waits until before returns.
func Spied(tb testing.TB, db *sql.DB, dsn string, before func(query string, args []driver.NamedValue)) *sql.DB {
	tb.Helper()
	spied := sql.OpenDB(&spy{db.Driver(), dsn, before})
	spied.SetMaxIdleConns(20)
	tb.Cleanup(func() {
		if err := spied.Close(); err != nil {
			tb.Error(err)
		}
	})
	return spied
}

// spy is a driver.Connector.
type spy struct {
	driver driver.Driver
	dsn    string
	before func(query string, args []driver.NamedValue)
}

func (s *spy) Driver() driver.Driver { return s.driver }

func (s *spy) Connect(context.Context) (driver.Conn, error) {
	conn, err := s.driver.Open(s.dsn)
	if err != nil {
		return nil, err
	}
	return &spyConn{conn, s.before}, nil
}

// spyConn has the optional methods that all drivers here have, or their defaults.
type spyConn struct {
	driver.Conn
	before func(query string, args []driver.NamedValue)
}

var (
	_ driver.QueryerContext    = (*spyConn)(nil)
	_ driver.ExecerContext     = (*spyConn)(nil)
	_ driver.ConnBeginTx       = (*spyConn)(nil)
	_ driver.SessionResetter   = (*spyConn)(nil)
	_ driver.Validator         = (*spyConn)(nil)
	_ driver.NamedValueChecker = (*spyConn)(nil)
)

// A driver that returns driver.ErrSkip has the statement prepared, which before has seen here.

func (c *spyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.before(query, args)
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c *spyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.before(query, args)
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *spyConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.before("begin", nil)
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

func (c *spyConn) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c *spyConn) IsValid() bool {
	if v, ok := c.Conn.(driver.Validator); ok {
		return v.IsValid()
	}
	return true
}

func (c *spyConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

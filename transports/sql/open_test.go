package sql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"testing"
	"testing/synctest"
)

// stalling is a database that refuses the first connection and does not answer the second.
type stalling struct {
	refusal error
	calls   int
}

func (s *stalling) Driver() driver.Driver { return nil }

func (s *stalling) Connect(ctx context.Context) (driver.Conn, error) {
	if s.calls++; s.calls == 1 {
		return nil, s.refusal
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// Why a database was away is said also when the time ends while it is tried again.
func TestConnectSaysWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refusal := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
		db := sql.OpenDB(&stalling{refusal: refusal})
		defer func() { _ = db.Close() }()
		if _, err := connect(t.Context(), db, Config{Dialect: MySQL}); !errors.Is(err, refusal) {
			t.Errorf("connect: %v; want %v", err, refusal)
		}
	})
}

package outbox

import (
	"context"
	"database/sql"
	"errors"

	tsql "github.com/gotidings/tidings/transports/sql"
)

// Tx is a transaction of the service: *sql.Tx, *sqlx.Tx, what GORM has in
// tx.Statement.ConnPool, or [Pgx] of a pgx.Tx. What has no methods Commit and Rollback is
// refused with [ErrNoTransaction].
type Tx = tsql.Tx

// ErrNoTransaction is returned by Publish for what is not a transaction: nil, a database, a
// pool or a connection, with which the event would be committed whatever becomes of the
// business data.
var ErrNoTransaction = tsql.ErrNoTransaction

// PgxTx is what [Pgx] needs of a pgx.Tx, whose Exec returns a pgconn.CommandTag.
type PgxTx[Tag CommandTag] interface {
	Exec(ctx context.Context, query string, args ...any) (Tag, error)
}

// CommandTag is the result of a pgx statement.
type CommandTag interface{ RowsAffected() int64 }

// Pgx makes a [Tx] of a pgx.Tx: ob.Publish(ctx, outbox.Pgx(tx), event). A pool and a
// connection, which have the same method, are refused by Publish.
func Pgx[Tag CommandTag](tx PgxTx[Tag]) Tx {
	if tx == nil {
		return nil
	}
	return pgxTx[Tag]{tx}
}

type pgxTx[Tag CommandTag] struct{ tx PgxTx[Tag] }

// Underlying is what decides whether this is a transaction.
func (t pgxTx[Tag]) Underlying() any { return t.tx }

func (t pgxTx[Tag]) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	tag, err := t.tx.Exec(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgxResult(tag.RowsAffected()), nil
}

// QueryContext is not needed on PostgreSQL, and can't be had: only database/sql makes rows.
func (pgxTx[Tag]) QueryContext(context.Context, string, ...any) (*sql.Rows, error) {
	return nil, errors.New("outbox: a pgx transaction is for PostgreSQL")
}

type pgxResult int64

func (r pgxResult) RowsAffected() (int64, error) { return int64(r), nil }

func (pgxResult) LastInsertId() (int64, error) {
	return 0, errors.New("PostgreSQL has no last insert id")
}

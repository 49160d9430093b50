package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
)

// Tx is a transaction of the service: *sql.Tx, *sqlx.Tx, what GORM has in
// tx.Statement.ConnPool, or [Pgx] of a pgx.Tx.
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// ErrNoTransaction is returned by Publish for what is no transaction: nil, or a database or
// connection, on which the event would be committed whatever becomes of the business data.
var ErrNoTransaction = errors.New("not in a transaction")

// checkTx finds what can't be a transaction.
func checkTx(tx Tx) error {
	if tx == nil {
		return fmt.Errorf("%w: tx is nil", ErrNoTransaction)
	}
	if v := reflect.ValueOf(tx); v.Kind() == reflect.Pointer && v.IsNil() {
		return fmt.Errorf("%w: tx is a nil %T", ErrNoTransaction, tx)
	}
	_, begins := tx.(interface {
		BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
	})
	_, commits := tx.(interface{ Commit() error })
	if begins && !commits {
		return fmt.Errorf("%w: tx is a %T; begin one, or use InTx", ErrNoTransaction, tx)
	}
	return nil
}

// PgxTx is what [Pgx] needs of a pgx.Tx, whose Exec returns a pgconn.CommandTag.
type PgxTx[Tag CommandTag] interface {
	Exec(ctx context.Context, query string, args ...any) (Tag, error)
}

// CommandTag is the result of a pgx statement.
type CommandTag interface{ RowsAffected() int64 }

// Pgx makes a [Tx] of a pgx.Tx: ob.Publish(ctx, outbox.Pgx(tx), event).
func Pgx[Tag CommandTag](tx PgxTx[Tag]) Tx {
	if tx == nil {
		return nil
	}
	return pgxTx[Tag]{tx}
}

type pgxTx[Tag CommandTag] struct{ tx PgxTx[Tag] }

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

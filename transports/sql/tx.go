package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"

	"github.com/gotidings/tidings/internal/dberr"
)

// Tx is a transaction for [Transport.PublishTx]: *sql.Tx, or what wraps one and has its
// methods Commit and Rollback too.
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

var (
	// ErrNoTransaction is returned for what is not a transaction: nil, a database, a pool or a
	// connection. With it the message would be committed at once, whatever becomes of the
	// business data.
	ErrNoTransaction = errors.New("not in a transaction")

	// ErrXA is returned for a branch of a distributed transaction on MySQL and MariaDB. It
	// loses the publisher's lock when it is prepared, or when the server crashes after that,
	// so that the message could be passed over and never delivered.
	ErrXA = errors.New("in a branch of a distributed transaction (XA); publish in a local transaction")
)

// checkTx returns ErrNoTransaction for what can't be committed and rolled back.
func checkTx(tx Tx) error {
	inner := any(tx)
	if wrapper, ok := inner.(interface{ Underlying() any }); ok { // outbox.Pgx
		inner = wrapper.Underlying()
	}
	if inner == nil {
		return fmt.Errorf("%w: tx is nil", ErrNoTransaction)
	}
	if v := reflect.ValueOf(inner); v.Kind() == reflect.Pointer && v.IsNil() {
		return fmt.Errorf("%w: tx is a nil %T", ErrNoTransaction, inner)
	}
	switch inner.(type) {
	case interface {
		Commit() error
		Rollback() error
	}:
		return nil
	case interface { // pgx.Tx
		Commit(ctx context.Context) error
		Rollback(ctx context.Context) error
	}:
		return nil
	}
	return fmt.Errorf("%w: tx is a %T, which commits each statement at once; begin a transaction and pass that", ErrNoTransaction, inner)
}

// checkTx returns [ErrXA] for a branch. XA END with a foreign id changes nothing: an active
// branch says that it has another id, and any other session that it is in no branch.
func (mysql) checkTx(ctx context.Context, tx Tx) error {
	if startedByDriver(tx) {
		return nil
	}
	const otherBranch, noBranch = 1397, 1399 // XAER_NOTA, XAER_RMFAIL
	_, err := tx.ExecContext(ctx, "xa end 'tidings: is this a branch?'")
	switch _, number := dberr.Code(err); {
	case number == otherBranch:
		return ErrXA
	case number == noBranch:
		return nil
	case err == nil:
		return errors.New("XA END of an unknown branch did not fail")
	}
	return err
}

// startedByDriver reports whether tx is a transaction of go-sql-driver/mysql, which begins
// it with START TRANSACTION: the server refuses XA START in it. This saves a round trip. The
// field belongs to database/sql; should it be renamed, the server is asked.
func startedByDriver(tx Tx) bool {
	std, ok := tx.(*sql.Tx)
	if !ok {
		return false
	}
	field := reflect.ValueOf(std).Elem().FieldByName("txi") // a driver.Tx
	if !field.IsValid() || field.Kind() != reflect.Interface || field.IsNil() {
		return false
	}
	t := field.Elem().Type()
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath() == "github.com/go-sql-driver/mysql"
}

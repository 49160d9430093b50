package main

import (
	"context"
	"errors"

	"github.com/gotidings/tidings/transports"

	// The schemes that -transport knows: a line each.
	_ "github.com/gotidings/tidings/transports/memory"
	_ "github.com/gotidings/tidings/transports/rabbitmq"
	_ "github.com/gotidings/tidings/transports/sql"

	// The drivers that transports/sql opens its URLs with.
	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"
)

// usageError is a fault of the command line that shows only when it is used.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// openTransport opens the transport of a URL. The error is a [*usageError] when the
// URL is at fault, and not the broker.
func openTransport(ctx context.Context, rawURL string) (transports.Transport, error) {
	t, err := transports.Open(ctx, rawURL)
	if err == nil {
		return t, nil
	}
	if errors.Is(err, transports.ErrInvalidURL) || errors.Is(err, transports.ErrUnknownScheme) {
		err = &usageError{err}
	}
	return nil, err
}

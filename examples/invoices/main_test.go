package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/internal/testserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example_run() {
	if err := run(context.Background(), "memory://", "invoices", os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// receipt for invoice 1, attempt 1
	// receipt for invoice 2, attempt 3
	// poisoned: invoice.paid {"invoiceId":3,"email":"ada@example.com"}: the mailbox is full
	// receipt for invoice 3, attempt 1
	// redriven: 1
}

// What docs/getting-started.md says of other transports: another URL, the same program.
func TestOtherTransports(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) string{
		"rabbitmq": func(t *testing.T) string { t.Helper(); return testserver.RabbitMQ(t) },
		"postgres": newSchema,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := open(t)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var out bytes.Buffer
			if err := run(ctx, address, "invoices-"+strings.ToLower(rand.Text()), &out); err != nil {
				t.Fatal(err)
			}
			const last = "receipt for invoice 3, attempt 1\nredriven: 1\n"
			if got := out.String(); !strings.HasSuffix(got, last) || strings.Count(got, "\n") != 5 {
				t.Errorf("output:\n%s\nwant five lines, the last ones\n%s", got, last)
			}
		})
	}
}

// newSchema returns the URL of a schema of PostgreSQL that ends with the test.
func newSchema(t *testing.T) string {
	t.Helper()
	address := testserver.Postgres(t)
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	schema := "inv_" + strings.ToLower(rand.Text())
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.Background(), "drop schema if exists "+schema+" cascade"); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("schema", schema)
	u.RawQuery = q.Encode()
	return u.String()
}

package sqltest

import (
	"net/url"
	"os"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sqltest")
	if err != nil {
		panic(err)
	}
	builds = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// builds is a folder for programs that tests build.
var builds string

func buildDir() string { return builds }

// withParameters adds to the parameters of a URL.
func withParameters(tb testing.TB, raw string, pairs ...string) string {
	tb.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		tb.Fatal(err)
	}
	q := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

var _ transports.Transport = (*tsql.Transport)(nil)

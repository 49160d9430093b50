package sqltest

import (
	"context"
	"flag"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
	"github.com/gotidings/tidings/transports/transporttest"
)

var update = flag.Bool("update", false, "write the transports' sections of docs/guarantees.md")

const (
	maxMessageBytes = 1 << 20
	guarantees      = "../../../docs/guarantees.md"
	unbounded       = "the log takes what the disk holds; a subscription that lags is warned of"
)

func TestConformancePostgres(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.Postgres(t)
	cfg.MaxMessageBytes = maxMessageBytes
	results := transporttest.Run(t, serverHarness(testsql.PostgresServer, cfg, func(t *testing.T) transports.Transport {
		t.Helper()
		tr, err := tsql.New(context.Background(), db, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}), transporttest.Features{
		MaxMessageBytes: maxMessageBytes,
		Lacks:           map[transporttest.Feature]string{transporttest.BackPressure: unbounded},
	})
	results.CheckGuarantees(t, guarantees, "sql on PostgreSQL", *update)
}

func TestConformanceMySQL(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.MariaDB(t)
	cfg.MaxMessageBytes = maxMessageBytes
	results := transporttest.Run(t, serverHarness(testsql.MySQLServer, cfg, func(t *testing.T) transports.Transport {
		t.Helper()
		tr, err := tsql.New(context.Background(), db, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}), transporttest.Features{
		MaxMessageBytes: maxMessageBytes,
		Lacks:           map[transporttest.Feature]string{transporttest.BackPressure: unbounded},
	})
	results.CheckGuarantees(t, guarantees, "sql on MySQL and MariaDB", *update)
}

func TestConformanceSQLite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	results := transporttest.Run(t, transporttest.Harness{
		Open: func(t *testing.T) transports.Transport {
			t.Helper()
			tr, err := transports.Open(context.Background(), "sqlite:"+path+"?poll_interval=50ms&max_message_bytes=1048576")
			if err != nil {
				t.Fatal(err)
			}
			return tr
		},
	}, transporttest.Features{
		MaxMessageBytes: maxMessageBytes,
		Lacks: map[transporttest.Feature]string{
			transporttest.BackPressure: unbounded,
			transporttest.Reconnect:    "the database is a file, so there is no connection to lose",
		},
	})
	results.CheckGuarantees(t, guarantees, "sql on SQLite", *update)
}

// serverHarness reaches a server directly and, by URL, through a proxy that cuts.
func serverHarness(s *testsql.Server, cfg tsql.Config, open func(*testing.T) transports.Transport) transporttest.Harness {
	return transporttest.Harness{
		Open: open,
		OpenCuttable: func(t *testing.T) (transports.Transport, func(), func()) {
			t.Helper()
			u, err := url.Parse(withParameters(t, s.URL(), "poll_interval", "50ms", "max_message_bytes", "1048576", "prefix", cfg.Prefix, "schema", cfg.Schema))
			if err != nil {
				t.Fatal(err)
			}
			p := newProxy(t, u.Host)
			u.Host = p.addr()
			tr, err := transports.Open(context.Background(), u.String())
			if err != nil {
				t.Fatal(err)
			}
			return tr, func() { p.setCut(true) }, func() { p.setCut(false) }
		},
	}
}

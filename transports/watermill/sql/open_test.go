package sql

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	wmsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"

	"github.com/gotidings/tidings/transports"
)

const secret = "s3cr3t"

func noSecret(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("it succeeds")
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("the error tells the password: %v", err)
	}
}

func TestOpenTellsNoPassword(t *testing.T) {
	t.Parallel()
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sp := newSpace(t, server)
			u := *sp.url
			u.User, u.Path = url.UserPassword("tidings_nobody", secret), "/tidings_nowhere"
			_, err := transports.Open(t.Context(), u.String())
			noSecret(t, err)
			contains(t, err, "watermill-sql: connect")
			u.RawQuery = "sslmode=bogus&tls=bogus"
			_, err = transports.Open(t.Context(), u.String())
			noSecret(t, err)
		})
	}
}

// A server that accepts and says nothing.
func TestOpenIsBounded(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a listener of the test, closed at its end
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
		}
	})
	defer func() {
		_ = l.Close()
		serving.Wait()
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	for _, scheme := range []string{"watermill+postgres", "watermill+mysql"} {
		start := time.Now()
		_, err := transports.Open(t.Context(), scheme+"://u:"+secret+"@"+l.Addr().String()+"/db?connect_timeout=200ms")
		noSecret(t, err)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: it took %s", scheme, took)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rawURL, dsn string
		check       func(*target) bool
	}{
		{
			"watermill+postgres://u:p%40@host:1/db?sslmode=disable", "postgres://u:p%40@host:1/db?sslmode=disable",
			func(t *target) bool { return t.cfg.Dialect == Postgres && t.cfg.withDefaults().startsNow() },
		},
		{
			"watermill+postgres://host/db?from=start&trim_prefix=shop.&poll_interval=2s&resend_interval=3s&ack_deadline=4s&connect_timeout=5s", "postgres://host/db",
			func(t *target) bool {
				return t.cfg.FromStart && t.cfg.Group(transports.Subscription{Name: "shop.mail"}) == "mail" && t.connectTimeout == 5*time.Second &&
					t.cfg.PollInterval == 2*time.Second && t.cfg.ResendInterval == 3*time.Second && t.cfg.AckDeadline == 4*time.Second
			},
		},
		{
			"watermill+mysql://u:p%40%2F@host/db?tls=true", "u:p@/@tcp(host:3306)/db?tls=true",
			func(t *target) bool {
				return t.cfg.Dialect == MySQL && t.cfg.withDefaults().AckDeadline == 20*time.Minute
			},
		},
		{
			"watermill+mysql://u@[::1]:1/db?payload=bytes", "u@tcp([::1]:1)/db",
			func(t *target) bool {
				return t.cfg.Schema.(wmsql.DefaultMySQLSchema).PayloadColumnType("a") == "LONGBLOB"
			},
		},
		{
			"watermill+postgres://host/db?payload=bytes", "postgres://host/db",
			func(t *target) bool {
				return t.cfg.Schema.(wmsql.DefaultPostgreSQLSchema).PayloadColumnType("a") == "BYTEA"
			},
		},
	} {
		u, err := url.Parse(c.rawURL)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parse(u)
		if err != nil {
			t.Errorf("%s: %v", c.rawURL, err)
			continue
		}
		if got.dsn != c.dsn || !c.check(got) {
			t.Errorf("%s becomes %s, %+v", c.rawURL, got.dsn, got.cfg)
		}
	}
	_, err := transports.Open(t.Context(), "watermill+mysql://u:"+secret+"@host?payload=xml&from=x&poll_interval=0&connect_timeout=-1s#there")
	noSecret(t, err)
	if !errors.Is(err, transports.ErrInvalidURL) {
		t.Errorf("%v is not ErrInvalidURL", err)
	}
	contains(t, err, "it looks like watermill+mysql://", `payload is "xml"`, `from is "x"`, `poll_interval is "0"`, `connect_timeout is "-1s"`)
	_, err = transports.Open(t.Context(), "watermill+postgres://u:"+secret+"@host/db?a=%zz")
	noSecret(t, err)
	contains(t, err, "parameters are malformed")
}

func TestDriver(t *testing.T) {
	t.Parallel()
	postgres, mysql := &target{cfg: Config{Dialect: Postgres}}, &target{cfg: Config{Dialect: MySQL}}
	for _, c := range []struct {
		target *target
		linked []string
		want   string
	}{
		{postgres, []string{"mysql", "postgres", "pgx"}, "pgx"},
		{postgres, []string{"mysql", "postgres"}, "postgres"},
		{mysql, []string{"mysql", "pgx"}, "mysql"},
	} {
		if got, err := c.target.driver(c.linked); got != c.want || err != nil {
			t.Errorf("of %q: %q, %v; want %q", c.linked, got, err, c.want)
		}
	}
	_, err := postgres.driver([]string{"mysql"})
	contains(t, err, `no driver is linked; import _ "github.com/jackc/pgx/v5/stdlib"`)
	_, err = mysql.driver(nil)
	contains(t, err, `import _ "github.com/go-sql-driver/mysql"`)
}

func TestConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), Config{PollInterval: -1, ResendInterval: -1, AckDeadline: -1})
	contains(t, err, "DB is nil", "Dialect is 0", "PollInterval is -1ns", "ResendInterval is -1ns", "AckDeadline is -1ns")
}

func TestNewGroupsStartNowOnDefaultTablesOnly(t *testing.T) {
	t.Parallel()
	own := func(string) string { return "t" }
	for name, c := range map[string]struct {
		cfg  Config
		want bool
	}{
		"default":         {Config{Dialect: MySQL}, true},
		"from the start":  {Config{Dialect: Postgres, FromStart: true}, false},
		"own offsets":     {Config{Dialect: Postgres, Offsets: wmsql.DefaultPostgreSQLOffsetsAdapter{}}, false},
		"own names":       {Config{Dialect: Postgres, Schema: wmsql.DefaultPostgreSQLSchema{GenerateMessagesTableName: own}}, false},
		"own names again": {Config{Dialect: MySQL, Schema: wmsql.DefaultMySQLSchema{GenerateMessagesTableName: own}}, false},
	} {
		if got := c.cfg.withDefaults().startsNow(); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

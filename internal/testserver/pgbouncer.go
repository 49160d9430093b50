package testserver

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// StartPgBouncer starts a PgBouncer in transaction mode in front of the PostgreSQL server at a
// URL, as [StartPostgres] starts a server. Its own URL is that one at another port.
func StartPgBouncer(tb testing.TB, postgresURL string) *Database {
	tb.Helper()
	const pkg = "apt-get install pgbouncer"
	bin := root("").find("pgbouncer")
	if bin == "" {
		missing(tb, "a private PgBouncer can't be started: it is not installed", pkg)
	}
	u, err := url.Parse(postgresURL)
	if err != nil {
		tb.Fatal(err)
	}
	upstream, password := u.Host, ""
	if u.Port() == "" {
		upstream = net.JoinHostPort(u.Host, "5432")
	}
	host, port, err := net.SplitHostPort(upstream)
	if err != nil {
		tb.Fatal(err)
	}
	if p, ok := u.User.Password(); ok {
		password = " password=" + p
	}
	d := newDatabase(tb, "", "postgres", pkg)
	u.Host = d.Addr()
	d.url = u.String()
	d.kill = syscall.SIGKILL
	config := filepath.Join(d.dir, "pgbouncer.ini")
	d.write(config, fmt.Sprintf(`[databases]
* = host=%s port=%s user=%s%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 5
`, host, port, u.User.Username(), password, d.port))
	d.server = func() *exec.Cmd { return d.command(context.Background(), bin, config) }
	d.ready = func(ctx context.Context) error { return postgres.answersAt(ctx, d.Addr()) }
	d.Start()
	return d
}

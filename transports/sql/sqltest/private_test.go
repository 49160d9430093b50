//go:build unix

package sqltest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	tsql "github.com/gotidings/tidings/transports/sql"
)

// privatePostgres is a server that a test has started itself, and may kill.
type privatePostgres struct {
	bin, dir string
	port     int
	asUser   *syscall.SysProcAttr // initdb refuses to run as root
	cmd      *exec.Cmd
}

// startPostgres starts a server with prepared transactions, or skips the test where
// PostgreSQL is not installed.
func startPostgres(t *testing.T) *privatePostgres {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if file, err := exec.LookPath("postgres"); err == nil {
		found = append(found, file)
	}
	if len(found) == 0 {
		if os.Getenv("REQUIRE_SERVICES") == "1" {
			t.Fatal("REQUIRE_SERVICES=1, and PostgreSQL is not installed")
		}
		t.Skip("SKIPPED: PostgreSQL is not installed: apt-get install postgresql")
	}
	dir, err := os.MkdirTemp("", "tidings-postgres") //nolint:usetesting // which only its owner may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &privatePostgres{bin: filepath.Dir(found[len(found)-1]), dir: dir}
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skipf("SKIPPED: PostgreSQL does not run as root, and there is no user postgres: %v", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		p.asUser = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}} //nolint:gosec // they are ids
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // to find a free port
	if err != nil {
		t.Fatal(err)
	}
	p.port = listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	initdb := exec.CommandContext(t.Context(), filepath.Join(p.bin, "initdb"), "-N", "-A", "trust", "-U", "postgres", "-D", filepath.Join(dir, "data"))
	initdb.SysProcAttr, initdb.Dir = p.asUser, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.start(t)
	t.Cleanup(p.kill)
	return p
}

func (p *privatePostgres) start(t *testing.T) {
	t.Helper()
	p.cmd = exec.Command(filepath.Join(p.bin, "postgres"), "-D", filepath.Join(p.dir, "data"), "-p", strconv.Itoa(p.port), //nolint:noctx // kill ends it
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+p.dir, "-c", "max_prepared_transactions=10")
	p.cmd.SysProcAttr, p.cmd.Dir = p.asUser, p.dir
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill ends the server at once, as a crash does. The children of the postmaster notice.
func (p *privatePostgres) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	_ = p.cmd.Wait()
}

// open waits for the server.
func (p *privatePostgres) open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", p.port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	p.await(t, db)
	return db
}

func (p *privatePostgres) await(t *testing.T, db *sql.DB) {
	t.Helper()
	for end := time.Now().Add(deadline); ; {
		err := db.PingContext(t.Context())
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the server does not start: %v", err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// A prepared transaction belongs to no session, and is open all the same.
func TestPreparedTransactions(t *testing.T) {
	t.Parallel()
	db := startPostgres(t).open(t)
	tr := newTransport(t, db, tsql.Config{Dialect: tsql.Postgres, PollInterval: 50 * time.Millisecond})
	ch := subscribe(t.Context(), t, tr, "s", 10, "a")
	prepare := func(name string, ids ...string) {
		t.Helper()
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		execute(t, conn, "begin")
		if err := tr.PublishTx(t.Context(), conn, outgoing("a", ids...)...); err != nil {
			t.Fatal(err)
		}
		execute(t, conn, "prepare transaction '"+name+"'")
	}
	prepare("commits", "1", "2")
	prepare("rolls back", "3")
	publish(t, tr, "a", "4")
	ackInOrder(t, ch, "4")
	publish(t, tr, "a", "5")
	ackInOrder(t, ch, "5")
	execute(t, db, "rollback prepared 'rolls back'")
	execute(t, db, "commit prepared 'commits'")
	ackInOrder(t, ch, "1", "2")
	wantQuiet(t, ch)
	eventually(t, db, 0, "select count(*) from tidings_gaps")
}

// The server crashes and comes back. Publishers wait for it, consumers go on, and nothing
// that was acknowledged is lost.
func TestServerCrash(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	db := server.open(t)
	tr := newTransport(t, db, tsql.Config{Dialect: tsql.Postgres, PollInterval: 50 * time.Millisecond, Lease: 2 * time.Second})
	ch := subscribe(t.Context(), t, tr, "s", 10, "a")
	const n = 2000
	published := make(chan error, 1)
	go func() {
		for _, id := range numbers(1, n) {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			msg := newMessage(id)
			msg.SetContext(ctx)
			err := tr.Publish("a", msg)
			cancel()
			if err != nil {
				published <- fmt.Errorf("publish %s: %w", id, err)
				return
			}
		}
		published <- nil
	}()
	seen := make(map[string]bool)
	crashes := 0
	for len(seen) < n {
		msg := receive(t, ch)
		seen[msg.UUID] = true
		msg.Ack()
		if len(seen) == (crashes+1)*n/3 && crashes < 2 {
			crashes++
			server.kill()
			server.start(t)
		}
	}
	if err := <-published; err != nil {
		t.Error(err)
	}
}

package testserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Database is a database server that belongs to one test, which may kill it.
//
// Its methods fail the test when they can't do what they are for. They are called one
// at a time, from the test's goroutine.
type Database struct {
	tb      testing.TB
	root    root
	account account
	dir     string // as the server sees it
	port    int
	url     string
	bin     string         // the server's program
	kill    syscall.Signal // ends it without letting it clean up
	server  func() *exec.Cmd
	ready   func(ctx context.Context) error
	vm      *process // nil while it is down
}

// StartPostgres starts a PostgreSQL server with prepared transactions, as the service's own user
// when the test runs as root. It is of the release that TIDINGS_POSTGRESQL names, or the one
// that is installed. It is gone, with its data, when the test ends.
func StartPostgres(tb testing.TB) *Database {
	tb.Helper()
	const pkg = "apt-get install postgresql"
	r := PostgresServer.mustRoot(tb, pkg)
	bin := r.find("postgres", "/usr/lib/postgresql/*/bin")
	if bin == "" {
		missing(tb, "a private PostgreSQL server can't be started: it is not installed", pkg)
	}
	if r == "" {
		if file, err := filepath.EvalSymlinks(bin); err == nil { // the other programs are beside the file, not the link
			bin = file
		}
	}
	programs := filepath.Dir(bin)
	d := newDatabase(tb, r, "postgres", pkg)
	d.bin = bin
	port := strconv.Itoa(d.port)
	d.url = "postgres://postgres@" + d.Addr() + "/postgres?sslmode=disable"
	d.kill = syscall.SIGQUIT // as a crash; after SIGKILL its children would go on and hold its memory
	d.setUp(filepath.Join(programs, "initdb"), "-N", "-A", "trust", "-U", "postgres", "-D", d.data())
	d.server = func() *exec.Cmd {
		return d.command(context.Background(), bin, "-D", d.data(), "-p", port,
			"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+d.dir, "-c", "max_prepared_transactions=10",
			"-c", "fsync=off") // the machine does not crash, and the system keeps what a killed process has written
	}
	d.ready = func(ctx context.Context) error {
		out, err := d.command(ctx, filepath.Join(programs, "pg_isready"), "-h", "127.0.0.1", "-p", port).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	d.Start()
	return d
}

// StartMySQL starts a MariaDB server with the database test, as [StartPostgres] does. It is of
// the release that TIDINGS_MARIADB names; TIDINGS_MYSQL names one of MySQL instead.
func StartMySQL(tb testing.TB) *Database {
	tb.Helper()
	server, pkg := MariaDBServer, "apt-get install mariadb-server"
	if os.Getenv(MySQLServer.Variable()) != "" {
		server, pkg = MySQLServer, rootsCommand
	}
	r := server.mustRoot(tb, pkg)
	bin, install, flags := r.find("mariadbd", "/usr/libexec"), r.find("mariadb-install-db"), []string{"--auth-root-authentication-method=normal"}
	if server == MySQLServer {
		bin = r.find("mysqld")
		install, flags = bin, []string{"--initialize-insecure"}
	}
	if bin == "" || install == "" {
		missing(tb, fmt.Sprintf("a private %s server can't be started: it is not installed", server), pkg)
	}
	d := newDatabase(tb, r, "mysql", pkg)
	d.bin = bin
	d.url = "mysql://root@" + d.Addr() + "/test"
	d.kill = syscall.SIGKILL
	setup := filepath.Join(d.dir, "setup.sql") // an anonymous user of this host would be taken for any user
	d.write(setup, "create database if not exists test;\ndrop user if exists ''@localhost;\n")
	own := []string{"--no-defaults", "--datadir=" + d.data(), "--tmpdir=" + d.dir}
	d.setUp(install, append(own, flags...)...)
	d.server = func() *exec.Cmd {
		return d.command(context.Background(), bin, append(own, "--port="+strconv.Itoa(d.port), "--bind-address=127.0.0.1", "--init-file="+setup,
			"--socket="+filepath.Join(d.dir, "socket"), "--pid-file="+filepath.Join(d.dir, "pid"),
			"--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=OFF")...) // written at each commit, and not synced, as above
	}
	d.ready = func(ctx context.Context) error { return mySQL.answersAt(ctx, d.Addr()) }
	d.Start()
	return d
}

// newDatabase makes the folder for a server that runs as the user called service.
func newDatabase(tb testing.TB, r root, service, pkg string) *Database {
	tb.Helper()
	d := &Database{tb: tb, root: r, account: serviceAccount(r, service), port: FreePort(tb)}
	if os.Getuid() == 0 && d.account == serviceAccount(r, "") {
		missing(tb, fmt.Sprintf("a database server does not run as root, and there is no user %s", service), pkg)
	}
	dir, err := r.makeFolder("tidings-" + service + "-") // only the test's own user can enter tb.TempDir
	if err != nil {
		tb.Fatal(err)
	}
	d.dir = dir
	tb.Cleanup(func() {
		if err := os.RemoveAll(r.outside(dir)); err != nil {
			tb.Errorf("data of the private database server: %v", err)
		}
	})
	if err := d.account.own(r.outside(dir)); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if d.vm != nil {
			d.Kill()
		}
	})
	return d
}

// write makes a file, which only the server's user can read.
func (d *Database) write(path, content string) {
	d.tb.Helper()
	outside := d.root.outside(path)
	if err := errors.Join(os.WriteFile(outside, []byte(content), 0o600), d.account.own(outside)); err != nil {
		d.tb.Fatal(err)
	}
}

func (d *Database) data() string { return filepath.Join(d.dir, "data") }

// setUp runs the program that makes the server's data.
func (d *Database) setUp(path string, args ...string) {
	d.tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.tb.Context()), startTimeout)
	defer cancel()
	if out, err := d.command(ctx, path, args...).CombinedOutput(); err != nil {
		d.tb.Fatalf("%s: %v\n%s", filepath.Base(path), err, out)
	}
}

func (d *Database) command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env = d.dir, d.root.environment()
	d.account.run(cmd)
	return cmd
}

// Start starts a server that was killed, on the data that it had, and returns when it
// takes connections.
func (d *Database) Start() {
	d.tb.Helper()
	if d.vm != nil {
		d.tb.Fatal("the private database server is running already")
	}
	cmd := d.server()
	said := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = said, said // read when it has ended
	vm, err := startProcess(cmd)
	if err != nil {
		d.tb.Fatalf("%s: %v", filepath.Base(cmd.Path), err)
	}
	d.vm = vm
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.tb.Context()), startTimeout)
	defer cancel()
	if err := d.await(ctx); err != nil {
		vm.kill()
		d.tb.Fatalf("the private database server has not started: %v\n%s", err, said)
	}
}

func (d *Database) await(ctx context.Context) error {
	const interval = 20 * time.Millisecond
	again := time.NewTicker(interval)
	defer again.Stop()
	for {
		err := d.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-d.vm.ended:
			return errors.New("it has ended")
		case <-ctx.Done():
			return err
		}
	}
}

// Addr returns the host and port of the server. They stay the same when it is started
// again.
func (d *Database) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(d.port)) }

// URL returns the URL of a database on the server, with its administrator as user.
func (d *Database) URL() string { return d.url }

var versionNumber = regexp.MustCompile(`\d+(\.\d+)+`)

// Version returns the version that the server's program says, such as "18.6".
func (d *Database) Version() string {
	d.tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.tb.Context()), startTimeout)
	defer cancel()
	out, err := d.command(ctx, d.bin, "--version").CombinedOutput()
	if err != nil {
		d.tb.Fatalf("%s --version: %v\n%s", d.bin, err, out)
	}
	return versionNumber.FindString(string(out))
}

// Kill ends the server without letting it clean up, and returns when it is gone.
func (d *Database) Kill() {
	d.tb.Helper()
	if d.vm == nil {
		d.tb.Fatal("the private database server is not running")
	}
	_ = d.vm.cmd.Process.Signal(d.kill) // an error: it has ended already
	<-d.vm.ended
	d.vm = nil
}

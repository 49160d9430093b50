package main

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

// orderCreated is what the events of these tests are.
type orderCreated struct {
	OrderID int `json:"orderId"`
}

func (orderCreated) EventType() string { return "order.created" }

// effects is a service whose handler writes to a database, once for each event by its
// inbox. The table would take an order twice.
type effects struct {
	db         *sql.DB
	handled    atomic.Int64
	deliveries atomic.Int64
}

func startEffects(t *testing.T, tr transports.Transport) *effects {
	t.Helper()
	// Nothing is synced: this process is not killed, and a test does not wait for a disk.
	dsn := "file:" + filepath.Join(t.TempDir(), "effects.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_txlock=immediate"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	e := &effects{db: db}
	if _, err := db.ExecContext(t.Context(), `create table effects (order_id integer)`); err != nil {
		t.Fatal(err)
	}
	ib, err := inbox.New(t.Context(), inbox.Config{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.New(tr, bus.Config{Source: "test", Service: "shop", Concurrency: 1, OnDelivery: func(bus.Delivery) { e.deliveries.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	inbox.Subscribe(b, ib, "mail", func(ctx context.Context, tx *sql.Tx, o orderCreated) error {
		defer e.handled.Add(1)
		_, err := tx.ExecContext(ctx, `insert into effects (order_id) values (?)`, o.OrderID)
		return err
	})
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := ib.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// count returns the number of effects, and of the orders that they are of.
func (e *effects) count(t *testing.T) (rows, orders int) {
	t.Helper()
	err := e.db.QueryRowContext(t.Context(), `select count(*), count(distinct order_id) from effects`).Scan(&rows, &orders)
	if err != nil {
		t.Fatal(err)
	}
	return rows, orders
}

func TestKilledRetrySQLite(t *testing.T) {
	t.Parallel()
	killRetries(t, sqliteBackend.transport(t, t.TempDir()))
}

func TestKilledRetryPostgres(t *testing.T) {
	t.Parallel()
	killRetries(t, postgresBackend(t).transport(t, ""))
}

func TestKilledRetryMySQL(t *testing.T) {
	t.Parallel()
	killRetries(t, mysqlDatabase(t))
}

func TestKilledRetryRabbitMQ(t *testing.T) {
	t.Parallel()
	killRetries(t, rabbitmqBackend(t).transport(t, ""))
}

// mysqlDatabase makes a database for the test.
func mysqlDatabase(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(testserver.MySQL(t))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("mysql", u.User.String()+"@tcp("+u.Host+")/")
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/cli_" + events.NewID()[24:] // the random part
	if _, err := db.ExecContext(t.Context(), "create database "+u.Path[1:]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := db.ExecContext(context.Background(), "drop database "+u.Path[1:])
		if err := errors.Join(err, db.Close()); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return u.String()
}

// killRetries kills the program again and again while it moves events. In the end each of
// them has had its effect, once.
//
// The program moves one small part in a second, so that it is half-way for seconds on any
// machine, and nothing here needs many transactions.
func killRetries(t *testing.T, address string) {
	t.Helper()
	tr, err := transports.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	e := startEffects(t, tr)
	const total = 400
	if err := poisonEvents(tr, "shop.mail", total, "refused"); err != nil {
		t.Fatal(err)
	}
	halfWay := 0
	for _, more := range []int64{1, 2, 5, 10, 15, 19, 20, 21} { // handled in this run before it is killed
		until := e.handled.Load() + more
		killWhen(t, retryCommand(t, address, "--all", "--at-once", "--rate", "20"), func() bool { return e.handled.Load() >= until })
		// What is in the poison queue now has not been moved, or not been taken out.
		if left := poisonedIn(t, tr); left > 0 && left < total {
			halfWay++
		}
	}
	if halfWay == 0 {
		t.Error("it was never killed half-way")
	}
	out, err := retryCommand(t, address, "--all", "--at-once").CombinedOutput()
	if err != nil {
		t.Fatalf("the last run: %v\n%s", err, out)
	}
	eventually(t, "every event is handled", func() bool {
		_, orders := e.count(t)
		return orders == total && poisonedIn(t, tr) == 0
	})
	depth := func() int {
		d, err := tr.(transports.DepthReporter).Depth(t.Context(), "shop.mail")
		if err != nil {
			t.Fatal(err)
		}
		return d.Ready
	}
	eventually(t, "the queue is empty", func() bool { return depth() == 0 })
	rows, orders := e.count(t)
	if rows != total || orders != total {
		t.Errorf("%d effects of %d orders, want %d of %d", rows, orders, total, total)
	}
	t.Logf("killed half-way %d times; %d second copies were met by the inbox", halfWay, e.deliveries.Load()-total)
}

// retryCommand is the program.
func retryCommand(t *testing.T, address string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "tidings", append([]string{"poison", "retry", "-s", "shop.mail"}, args...)...)
	cmd.Env = append(os.Environ(), "TIDINGS_TRANSPORT="+address)
	return cmd
}

// killWhen runs a retry, and kills it with SIGKILL as soon as done.
func killWhen(t *testing.T, cmd *exec.Cmd, done func() bool) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "enough are handled", done)
	_ = cmd.Process.Kill() // it may have ended: then that was not half-way
	_ = cmd.Wait()         // killed
}

func poisonedIn(t *testing.T, tr transports.Transport) int {
	t.Helper()
	d, err := tr.(transports.DepthReporter).Depth(t.Context(), "shop.mail")
	if err != nil {
		t.Fatal(err)
	}
	return d.Poisoned
}

// eventually waits for what another process brings about.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

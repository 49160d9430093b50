package main

import (
	"context"
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/inbox"
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
	dsn := "file:" + filepath.Join(t.TempDir(), "effects.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate"
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
	// Without a rate all may be moved before the service, which waits for the file, sees the first.
	killRetries(t, sqliteBackend.transport(t, t.TempDir()), "--rate", "250")
}

func TestKilledRetryRabbitMQ(t *testing.T) {
	t.Parallel()
	killRetries(t, rabbitmqBackend(t).transport(t, ""))
}

// killRetries kills the program again and again while it moves events. In the end each of
// them has had its effect, once.
func killRetries(t *testing.T, address string, args ...string) {
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
	const events = 2000
	if err := poisonEvents(tr, "shop.mail", events, "refused"); err != nil {
		t.Fatal(err)
	}
	halfWay := 0
	for _, more := range []int64{1, 1, 3, 5, 10, 15, 20, 30, 40} { // handled in this run before it is killed
		until := e.handled.Load() + more
		killWhen(t, retryCommand(t, address, append(args, "--all", "--at-once")...), func() bool { return e.handled.Load() >= until })
		// What is in the poison queue now has not been moved, or not been taken out.
		if left := poisonedIn(t, tr); left > 0 && left < events {
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
		return orders == events && poisonedIn(t, tr) == 0
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
	if rows != events || orders != events {
		t.Errorf("%d effects of %d orders, want %d of %d", rows, orders, events, events)
	}
	t.Logf("killed half-way %d times; %d second copies were met by the inbox", halfWay, e.deliveries.Load()-events)
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
	n := 0
	for _, err := range tr.(transports.PoisonQueue).Poisoned(t.Context(), "shop.mail") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
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

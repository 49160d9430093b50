// Command child is a service that fault tests run, cut off and kill: a producer of orders,
// a relay, or a worker that reserves and confirms them.
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
	_ "github.com/gotidings/tidings/transports/rabbitmq"
)

type orderCreated struct {
	ID int `json:"id"`
}

func (orderCreated) EventType() string { return "order.created" }

func (e orderCreated) PartitionKey() string { return fmt.Sprint(e.ID % customers) }

type orderReserved struct {
	ID int `json:"id"`
}

func (orderReserved) EventType() string { return "order.reserved" }

const customers = 50

func main() {
	role := flag.String("role", "", "produce, relay, work or crash")
	driver := flag.String("driver", "", "driver of database/sql")
	dsn := flag.String("dsn", "", "of the database")
	broker := flag.String("broker", "", "URL; none: the database")
	n := flag.Int("n", 0, "orders to produce")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := run(ctx, *role, *driver, *dsn, *broker, *n)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, *role+":", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, role, driver, dsn, broker string, n int) error {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	db.SetMaxIdleConns(30)
	db.SetMaxOpenConns(30)
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var ob *outbox.Outbox
	err = patiently(ctx, func() error {
		ob, err = outbox.New(ctx, outbox.Config{DB: db, Source: "shop", NoMigrate: true, Logger: log})
		return err
	})
	if err != nil {
		return err
	}
	switch role {
	case "produce":
		return produce(ctx, db, ob, n)
	case "crash":
		return crash(ctx, ob)
	}
	var to transports.Transport = ob.Transport()
	if broker != "" {
		err = patiently(ctx, func() error {
			to, err = transports.Open(ctx, broker, transports.WithLogger(log))
			return err
		})
		if err != nil {
			return err
		}
	}
	if role == "relay" {
		return relay(ctx, ob, to)
	}
	return work(ctx, db, ob, to, log)
}

// patiently tries again what fails because a server is away.
func patiently(ctx context.Context, fn func() error) error {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		err := fn()
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// crash commits an event and dies before anybody has seen it, and dies once more in a
// transaction.
func crash(ctx context.Context, ob *outbox.Outbox) error {
	err := ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error { return ob.Publish(ctx, tx, orderCreated{ID: 1}) })
	if err != nil {
		return err
	}
	return ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error {
		if err := ob.Publish(ctx, tx, orderCreated{ID: 2}); err != nil {
			return err
		}
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			return err
		}
		return self.Kill()
	})
}

// produce commits the orders that are not there yet, each with its event, and rolls back
// one in five before, whose event has the id 0.
func produce(ctx context.Context, db *sql.DB, ob *outbox.Outbox, n int) error {
	const producers = 4
	var producing sync.WaitGroup
	for p := range producers {
		producing.Go(func() {
			_ = patiently(ctx, func() error { return produceSome(ctx, db, ob, n, p, producers) })
		})
	}
	producing.Wait()
	<-ctx.Done() // it is ended from outside, at any moment
	return nil
}

func produceSome(ctx context.Context, db *sql.DB, ob *outbox.Outbox, n, p, step int) error {
	var last int
	if err := db.QueryRowContext(ctx, fmt.Sprintf("select coalesce(max(id), 0) from orders where id %% %d = %d", step, p)).Scan(&last); err != nil {
		return err
	}
	if last == 0 {
		last = p - step
		if p == 0 {
			last = 0
		}
	}
	for id := last + step; id <= n; id += step {
		if id%5 == 0 {
			_ = ob.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
				if err := ob.Publish(ctx, tx, orderCreated{ID: 0}); err != nil {
					return err
				}
				return context.Canceled // anything
			})
		}
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		err = ob.Publish(ctx, tx, orderCreated{ID: id})
		if err == nil {
			_, err = tx.ExecContext(ctx, fmt.Sprintf("insert into orders (id) values (%d)", id))
		}
		if err != nil {
			_ = tx.Rollback()
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

func relay(ctx context.Context, ob *outbox.Outbox, to transports.Transport) error {
	r, err := outbox.NewRelay(ob, outbox.RelayConfig{Name: "broker", To: to, Lease: time.Second})
	if err != nil {
		return err
	}
	return patiently(ctx, func() error { return r.Run(ctx) })
}

func work(ctx context.Context, db *sql.DB, ob *outbox.Outbox, from transports.Transport, log *slog.Logger) error {
	var ib *inbox.Inbox
	err := patiently(ctx, func() (err error) {
		ib, err = inbox.New(ctx, inbox.Config{DB: db, NoMigrate: true, Logger: log})
		return err
	})
	if err != nil {
		return err
	}
	redeliveries := make([]time.Duration, 200)
	for i := range redeliveries {
		redeliveries[i] = 300 * time.Millisecond
	}
	var b *bus.Bus
	start := func() (err error) {
		b, err = bus.New(from, bus.Config{Source: "shop", Concurrency: 8, Retry: bus.RetryPolicy{Redeliveries: redeliveries}, Logger: log})
		if err != nil {
			return err
		}
		inbox.Subscribe(b, ib, "reserve", func(ctx context.Context, tx *sql.Tx, e orderCreated) error {
			if _, err := tx.ExecContext(ctx, fmt.Sprintf("insert into reserved (id) values (%d)", e.ID)); err != nil {
				return err
			}
			return ob.Publish(ctx, tx, orderReserved(e))
		})
		inbox.Subscribe(b, ib, "confirm", func(ctx context.Context, tx *sql.Tx, e orderReserved) error {
			_, err := tx.ExecContext(ctx, fmt.Sprintf("insert into confirmed (id) values (%d)", e.ID))
			return err
		})
		return b.Start(ctx)
	}
	if err := patiently(ctx, start); err != nil {
		return err
	}
	<-ctx.Done()
	return b.Shutdown(context.Background())
}

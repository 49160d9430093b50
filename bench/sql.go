package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// sqlDatabase is a database that SQL cases run on.
type sqlDatabase struct {
	name   string
	driver string
	env    string // has the DSN, in the driver's notation
	dsn    string // where it is not set
	config func(name string) tsql.Config
	drop   func(ctx context.Context, db *sql.DB, name string) error
}

var postgresDatabase = sqlDatabase{
	name: "postgres", driver: "pgx", env: "POSTGRES_URL", dsn: "postgres://postgres@127.0.0.1:5432/test?sslmode=disable",
	config: func(name string) tsql.Config { return tsql.Config{Dialect: tsql.Postgres, Schema: name} },
	drop: func(ctx context.Context, db *sql.DB, name string) error {
		_, err := db.ExecContext(ctx, `drop schema if exists "`+name+`" cascade`)
		return err
	},
}

// sqlCases measure a backlog being handled, a handler that waits, and publishing.
func sqlCases() []benchCase {
	d := postgresDatabase
	return []benchCase{
		{group: d.name, variant: "work=drain", peer: reference, prepare: func(ctx context.Context, l *ledger) (rig, error) {
			return prepareDrain(ctx, l, d, 0)
		}},
		{group: d.name, variant: "work=drain-10ms-64", peer: reference, prepare: func(ctx context.Context, l *ledger) (rig, error) {
			return prepareDrain(ctx, l, d, 10*time.Millisecond, bus.Concurrency(64))
		}},
		{group: d.name, variant: "work=publish-8", peer: reference, prepare: func(ctx context.Context, l *ledger) (rig, error) {
			return prepareSQLPublish(ctx, l, d, 8)
		}},
	}
}

// prepareDrain publishes everything before the measured time.
func prepareDrain(ctx context.Context, l *ledger, d sqlDatabase, work time.Duration, opts ...bus.SubscribeOption) (rig, error) {
	return prepareSQL(ctx, l, d, work, opts, func(ctx context.Context, b *bus.Bus, tr *tsql.Transport) (func(context.Context) error, error) {
		err := tr.DeclareSubscription(ctx, transports.Subscription{Name: "bench.handler", Topics: []string{purchaseType}, Concurrency: 1}, tsql.FromNow)
		if err != nil {
			return nil, err
		}
		publisher, err := bus.New(tr, bus.Config{Source: "bench"})
		if err != nil {
			return nil, err
		}
		const batch = 1000
		events := make([]any, 0, batch)
		for seq := range l.handledTimes {
			events = append(events, newPurchase(seq))
			if len(events) == batch || seq == len(l.handledTimes)-1 {
				if err := publisher.PublishAll(ctx, events...); err != nil {
					return nil, err
				}
				events = events[:0]
			}
		}
		return b.Start, nil
	})
}

// prepareSQLPublish measures from publish to handled.
func prepareSQLPublish(ctx context.Context, l *ledger, d sqlDatabase, publishers int) (rig, error) {
	return prepareSQL(ctx, l, d, 0, nil, func(ctx context.Context, b *bus.Bus, _ *tsql.Transport) (func(context.Context) error, error) {
		return func(ctx context.Context) error {
			return l.publish(ctx, publishers, func(ctx context.Context, e purchase) error { return b.Publish(ctx, e) })
		}, b.Start(ctx)
	})
}

func prepareSQL(ctx context.Context, l *ledger, d sqlDatabase, work time.Duration, opts []bus.SubscribeOption,
	ready func(context.Context, *bus.Bus, *tsql.Transport) (run func(context.Context) error, err error),
) (r rig, err error) {
	random := make([]byte, 5)
	_, _ = rand.Read(random)
	name := "bench_" + hex.EncodeToString(random)
	db, err := sql.Open(d.driver, cmp.Or(os.Getenv(d.env), d.dsn))
	if err != nil {
		return rig{}, err
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	clean := func() error {
		return errors.Join(d.drop(context.WithoutCancel(ctx), db, name), db.Close())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, clean())
		}
	}()
	tr, err := tsql.New(ctx, db, d.config(name))
	if err != nil {
		return rig{}, fmt.Errorf("%s: %w", d.name, err)
	}
	b, err := bus.New(tr, bus.Config{Source: "bench", AllowVolatileDedup: true})
	if err != nil {
		return rig{}, err
	}
	bus.Subscribe(b, "handler", func(ctx context.Context, e purchase) error {
		if work > 0 {
			select {
			case <-time.After(work):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		l.handled(e)
		return nil
	}, opts...)
	run, err := ready(ctx, b, tr)
	if err != nil {
		return rig{}, errors.Join(err, tr.Close())
	}
	return rig{
		run: run,
		close: func() error {
			return errors.Join(b.Shutdown(context.Background()), tr.Close(), clean())
		},
	}, nil
}

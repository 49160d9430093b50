package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// The peer for work that is queued in PostgreSQL is River, on pgx itself, which looks at
// its queue each 2 ms. It has 2,000 workers for a handler that returns at once, which is
// as fast as it gets, and as many as the library for one that waits.

const riverNote = "River, a job queue: a row per job that is updated when it is fetched and when it is done, and no fan-out. " +
	"Not like for like, and the same work for an event with one subscription"

// Kind names the job, for River.
func (purchase) Kind() string { return purchaseType }

type riverWorker struct {
	river.WorkerDefaults[purchase]
	takes time.Duration
	l     *ledger
}

func (w *riverWorker) Work(ctx context.Context, job *river.Job[purchase]) error {
	if err := pretend(ctx, w.takes); err != nil {
		return err
	}
	w.l.handled(job.Args)
	return nil
}

// prepareRiver is a backlog, in a schema of its own.
func prepareRiver(ctx context.Context, l *ledger, d sqlDatabase, takes time.Duration) (_ rig, err error) {
	db, name, clean, err := d.open(ctx)
	if err != nil {
		return rig{}, err
	}
	closers := func() error {
		_, err := db.ExecContext(context.WithoutCancel(ctx), "drop schema if exists "+name+" cascade")
		return errors.Join(err, clean())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closers())
		}
	}()
	if _, err := db.ExecContext(ctx, "create schema "+name); err != nil {
		return rig{}, err
	}
	pool, err := pgxpool.New(ctx, d.url())
	if err != nil {
		return rig{}, err
	}
	defer func() {
		if err != nil {
			pool.Close()
		}
	}()
	quiet := slog.New(slog.DiscardHandler)
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: name, Logger: quiet})
	if err != nil {
		return rig{}, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return rig{}, fmt.Errorf("migrate: %w", err)
	}
	workers := 2_000
	if takes > 0 {
		workers = 64
	}
	client, err := newRiverClient(pool, name, workers, &riverWorker{takes: takes, l: l}, quiet)
	if err != nil {
		return rig{}, err
	}
	err = inBatches(l, func(batch []purchase) error {
		jobs := make([]river.InsertManyParams, len(batch))
		for i, e := range batch {
			jobs[i] = river.InsertManyParams{Args: e}
		}
		_, err := client.InsertManyFast(ctx, jobs)
		return err
	})
	if err != nil {
		return rig{}, err
	}
	return rig{
		run: func(ctx context.Context) error { return client.Start(context.WithoutCancel(ctx)) },
		close: func() error {
			err := client.Stop(context.Background())
			pool.Close()
			return errors.Join(err, closers())
		},
	}, nil
}

func newRiverClient(pool *pgxpool.Pool, schema string, most int, w *riverWorker, log *slog.Logger) (*river.Client[pgx.Tx], error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, w); err != nil {
		return nil, err
	}
	return river.NewClient(riverpgxv5.New(pool), &river.Config{
		Schema: schema, Logger: log, Workers: workers,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: most}},
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
	})
}

package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// storeBatch is how many events a batch has in the cases of the event store.
const storeBatch = 100

// storeFollow is more often than by default, so that index and seals take part in rounds of
// a second or two.
const storeFollow = 100 * time.Millisecond

// eventstoreCases measure what the event store costs publishers: batches to the SQL
// transport without it, with its index, with index and seals, which follow the log while it
// is written, and recorded in a second log before they go to the first, as those of another
// transport are.
func eventstoreCases(d sqlDatabase) []benchCase {
	var cases []benchCase
	for _, v := range []struct {
		peer, note string
		cfg        *eventstore.Config
		record     bool
	}{
		{reference, "without an event store", nil, false},
		{"store", "the log is the store, without index and seals", &eventstore.Config{}, false},
		{"store-index", "with an index that follows", &eventstore.Config{Index: true}, false},
		{"store-sealed", "with index and seals that follow", &eventstore.Config{Index: true, Seal: true}, false},
		{"store-recorded", "written twice: recorded in a log of its own first", &eventstore.Config{}, true},
	} {
		cases = append(cases, benchCase{
			variant: "publish-batch-100", peer: v.peer, note: v.note,
			prepare: func(ctx context.Context, l *ledger) (rig, error) {
				return prepareStore(ctx, l, d, v.cfg, v.record)
			},
		})
	}
	return cases
}

func prepareStore(ctx context.Context, l *ledger, d sqlDatabase, cfg *eventstore.Config, record bool) (r rig, err error) {
	db, name, clean, err := d.open(ctx)
	if err != nil {
		return rig{}, err
	}
	closers := []func() error{clean}
	down := func() (err error) {
		for _, c := range slices.Backward(closers) {
			err = errors.Join(err, c())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, down())
		}
	}()
	tr, err := tsql.New(ctx, db, d.config(name))
	if err != nil {
		return rig{}, err
	}
	closers = append(closers, tr.Close)
	if err := tr.DeclareSubscription(ctx, transports.Subscription{Name: "bench", Topics: []string{purchaseType}, Concurrency: 1}, tsql.FromNow); err != nil {
		return rig{}, err
	}
	publish := tr.PublishBatch
	if cfg != nil {
		c := *cfg
		c.Log, c.FollowInterval = tr, storeFollow
		if record {
			second := d.config(name)
			second.Prefix += "second_"
			if c.Log, err = tsql.New(ctx, db, second); err != nil {
				return rig{}, err
			}
			closers = append(closers, c.Log.Close)
		}
		store, err := eventstore.New(ctx, c)
		if err != nil {
			return rig{}, err
		}
		closers = append(closers, store.Close)
		if record {
			publish = store.Record(publish)
		}
	}
	send := func(ctx context.Context, batch []purchase) error {
		out := make([]transports.Outgoing, len(batch))
		for i, p := range batch {
			msg, err := plainMessage(ctx, p)
			if err != nil {
				return err
			}
			msg.Metadata["ce_source"], msg.Metadata["ce_type"] = "/bench", purchaseType
			msg.Metadata["ce_time"] = time.Now().UTC().Format(time.RFC3339Nano)
			msg.Metadata["ce_correlationid"], msg.Metadata["ce_subject"] = msg.UUID, "purchase"
			out[i] = transports.Outgoing{Topic: purchaseType, Message: msg}
		}
		return publish(ctx, out)
	}
	return rig{
		run: func(ctx context.Context) error {
			return l.publishBatches(ctx, publishing{callers: sqlPublishers, batch: storeBatch}, send)
		},
		close: down,
	}, nil
}

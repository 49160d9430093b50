package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"

	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// sqlPublishers is how many publish at a time in the cases of publishing alone.
const sqlPublishers = 8

// sqlPublishCases measure publishing, one event at a time, with nobody consuming: in the
// caller's transaction, which begins and commits in the measured time, and to some
// subscriptions.
func sqlPublishCases(d sqlDatabase) []benchCase {
	var cases []benchCase
	if d.schema != nil {
		cases = append(cases,
			benchCase{variant: "publish-tx", peer: reference, prepare: func(ctx context.Context, l *ledger) (rig, error) {
				return preparePublishSQL(ctx, l, d, 1, true)
			}},
			benchCase{variant: "publish-tx", peer: "watermill-sql", prepare: func(ctx context.Context, l *ledger) (rig, error) {
				return preparePublishTxWatermill(ctx, l, d)
			}})
	}
	if d.driver == "mysql" { // what a pool of the user's own is worth without it
		interpolated := d
		interpolated.params = "&interpolateParams=true"
		cases = append(cases,
			benchCase{variant: "publish-tx-interpolated", peer: reference, prepare: func(ctx context.Context, l *ledger) (rig, error) {
				return preparePublishSQL(ctx, l, interpolated, 1, true)
			}},
			benchCase{variant: "publish-tx-interpolated", peer: "watermill-sql", prepare: func(ctx context.Context, l *ledger) (rig, error) {
				return preparePublishTxWatermill(ctx, l, interpolated)
			}})
	}
	for n := 1; n <= 3; n++ {
		cases = append(cases, benchCase{
			variant: fmt.Sprintf("publish-to-%d", n), peer: reference,
			prepare: func(ctx context.Context, l *ledger) (rig, error) { return preparePublishSQL(ctx, l, d, n, false) },
		})
	}
	return cases
}

// preparePublishSQL publishes to some subscriptions, by the transport alone.
func preparePublishSQL(ctx context.Context, l *ledger, d sqlDatabase, subscriptions int, inTx bool) (r rig, err error) {
	db, name, clean, err := d.open(ctx)
	if err != nil {
		return rig{}, err
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
	defer func() {
		if err != nil {
			err = errors.Join(err, tr.Close())
		}
	}()
	for i := range subscriptions {
		s := transports.Subscription{Name: fmt.Sprintf("bench.%d", i), Topics: []string{purchaseType}, Concurrency: 1}
		if err := tr.DeclareSubscription(ctx, s, tsql.FromNow); err != nil {
			return rig{}, err
		}
	}
	send := func(ctx context.Context, batch []purchase) error {
		msg, err := plainMessage(ctx, batch[0])
		if err != nil {
			return err
		}
		if !inTx {
			return tr.Publish(purchaseType, msg)
		}
		return inTransaction(ctx, db, func(tx *sql.Tx) error {
			return tr.PublishTx(ctx, tx, transports.Outgoing{Topic: purchaseType, Message: msg})
		})
	}
	return rig{
		run: func(ctx context.Context) error {
			return l.publishBatches(ctx, publishing{callers: sqlPublishers, batch: 1}, send)
		},
		close: func() error { return errors.Join(tr.Close(), clean()) },
	}, nil
}

// preparePublishTxWatermill is the same with a publisher for each transaction, which is
// how watermill-sql does it.
func preparePublishTxWatermill(ctx context.Context, l *ledger, d sqlDatabase) (r rig, err error) {
	db, name, clean, err := d.open(ctx)
	if err != nil {
		return rig{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, clean())
		}
	}()
	topic := name + "_" + "purchase"
	subscriber, err := wsql.NewSubscriber(db, wsql.SubscriberConfig{
		ConsumerGroup: "bench", SchemaAdapter: d.schema, OffsetsAdapter: d.offsets, InitializeSchema: true,
	}, nil)
	if err != nil {
		return rig{}, err
	}
	if err := errors.Join(subscriber.SubscribeInitialize(topic), subscriber.Close()); err != nil {
		return rig{}, err
	}
	send := func(ctx context.Context, batch []purchase) error {
		msg, err := plainMessage(ctx, batch[0])
		if err != nil {
			return err
		}
		return inTransaction(ctx, db, func(tx *sql.Tx) error {
			publisher, err := wsql.NewPublisher(tx, wsql.PublisherConfig{SchemaAdapter: d.schema}, nil)
			if err != nil {
				return err
			}
			return publisher.Publish(topic, msg)
		})
	}
	return rig{
		run: func(ctx context.Context) error {
			return l.publishBatches(ctx, publishing{callers: sqlPublishers, batch: 1}, send)
		},
		close: clean,
	}, nil
}

// inTransaction is what a service does around its own writes.
func inTransaction(ctx context.Context, db *sql.DB, fn func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
)

// outboxCases measure the way from a table to RabbitMQ: a backlog, and single events of an
// idle service, whose latency is from the commit to the broker's confirm.
func outboxCases(broker string) []benchCase {
	d := sqlDatabases[0] // PostgreSQL
	var cases []benchCase
	for _, work := range []string{"work=drain", "work=idle"} {
		for _, peer := range []struct {
			name        string
			note        string
			drain, idle int // most events
			prepare     func(ctx context.Context, l *ledger, d sqlDatabase, broker string) (*outboxRig, error)
		}{
			{reference, "", 50_000, 300, prepareOutbox},
			{"tidings-behind-1M", "1,000,000 events have been sent before", 50_000, 300, behind},
			{"tidings-beside-open", "an unrelated transaction has written and stays open", 50_000, 300, besideOpen},
			{"watermill-forwarder", "watermill-sql at its defaults, forwarder, watermill-amqp with confirms", 2_000, 20, prepareForwarder},
		} {
			most, run := peer.drain, (*outboxRig).drain
			if work == "work=idle" {
				most, run = peer.idle, (*outboxRig).idle
			}
			cases = append(cases, benchCase{
				group: "outbox", variant: work, peer: peer.name, note: peer.note, most: most, needsBroker: true,
				prepare: func(ctx context.Context, l *ledger) (rig, error) {
					r, err := peer.prepare(ctx, l, d, broker)
					if err != nil {
						return rig{}, err
					}
					return run(r, ctx, l)
				},
			})
		}
	}
	return cases
}

// outboxRig is one way to do it.
type outboxRig struct {
	db      *sql.DB
	prefix  string // of the library's tables
	fill    func(ctx context.Context, events []purchase) error
	relay   func(ctx context.Context) error // until ctx ends
	closers []func() error                  // the last one first
}

func (r *outboxRig) close() error {
	var err error
	for _, c := range slices.Backward(r.closers) {
		err = errors.Join(err, c())
	}
	return err
}

// start runs the relay until the returned function is called.
func (r *outboxRig) start() (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.relay(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

// drain measures from the start of the relay.
func (r *outboxRig) drain(ctx context.Context, l *ledger) (rig, error) {
	all := make([]purchase, len(l.handledTimes))
	for i := range all {
		all[i] = newPurchase(i)
	}
	for part := range slices.Chunk(all, 500) {
		if err := r.fill(ctx, part); err != nil {
			return rig{}, errors.Join(err, r.close())
		}
	}
	stop := func() error { return nil }
	return rig{
		run: func(context.Context) error {
			stop = r.start()
			return nil
		},
		close: func() error { return errors.Join(stop(), r.close()) },
	}, nil
}

// idle sends single events, and measures from the commit on.
func (r *outboxRig) idle(_ context.Context, l *ledger) (rig, error) {
	l.singly()
	stop := r.start()
	return rig{
		run: func(ctx context.Context) error {
			return l.oneByOne(ctx, func(ctx context.Context, e purchase) (time.Time, error) {
				err := r.fill(ctx, []purchase{e})
				return time.Now(), err
			})
		},
		close: func() error { return errors.Join(stop(), r.close()) },
	}, nil
}

// sent notes events that the broker has confirmed.
func (r *outboxRig) sent(l *ledger, payloads ...[]byte) error {
	for _, payload := range payloads {
		var e purchase
		if err := json.Unmarshal(payload, &e); err != nil {
			return err
		}
		l.handled(e)
	}
	return nil
}

// prepareOutbox is the library.
func prepareOutbox(ctx context.Context, l *ledger, d sqlDatabase, broker string) (*outboxRig, error) {
	db, name, closeDB, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	r := &outboxRig{db: db, closers: []func() error{closeDB}}
	lib, err := openLibrary(ctx, broker)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	r.closers = append(r.closers, lib.close)
	cfg := d.config(name)
	r.prefix = cfg.Prefix
	ob, err := outbox.New(ctx, outbox.Config{DB: db, Dialect: cfg.Dialect, Schema: cfg.Schema, Prefix: cfg.Prefix, Source: "bench"})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	r.closers = append(r.closers, ob.Close)
	relay, err := outbox.NewRelay(ob, outbox.RelayConfig{Name: "rabbitmq", To: &notingTransport{lib.transport, r, l}})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	if err := relay.Declare(ctx); err != nil {
		return nil, errors.Join(err, r.close())
	}
	r.relay = relay.Run
	r.fill = func(ctx context.Context, events []purchase) error {
		return ob.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
			all := make([]any, len(events))
			for i, e := range events {
				all[i] = e
			}
			return ob.Publish(ctx, tx, all...)
		})
	}
	return r, nil
}

// behind is the library with a million events in its log that have been sent.
func behind(ctx context.Context, l *ledger, d sqlDatabase, broker string) (*outboxRig, error) {
	r, err := prepareOutbox(ctx, l, d, broker)
	if err != nil {
		return nil, err
	}
	const n = 1_000_000
	// As they would be, and the relay is past them: it begins where its row says.
	for _, query := range []string{
		`insert into {}messages (topic, event_id, source, partition_key, metadata, payload)
			select '` + purchaseType + `', 'past-' || i, 'bench', '', '{}', convert_to(repeat('x', 200), 'utf8') from generate_series(1, ` + fmt.Sprint(n) + `) i`,
		`update {}log set frontier = (select max(id) from {}messages)`,
		`update {}subscriptions set position = (select frontier from {}log)`,
		`vacuum analyze {}messages`,
	} {
		query = strings.ReplaceAll(query, "{}", r.prefix)
		if _, err := r.db.ExecContext(ctx, query); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", query, err), r.close())
		}
	}
	return r, nil
}

// besideOpen is the library while somebody keeps a transaction open that has written, in
// the same database.
func besideOpen(ctx context.Context, l *ledger, d sqlDatabase, broker string) (*outboxRig, error) {
	r, err := prepareOutbox(ctx, l, d, broker)
	if err != nil {
		return nil, err
	}
	tx, err := r.db.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	r.closers = append(r.closers, tx.Rollback)
	for _, query := range []string{`create temporary table unrelated (id int)`, `insert into unrelated values (1)`} {
		if _, err := tx.ExecContext(ctx, query); err != nil {
			return nil, errors.Join(err, r.close())
		}
	}
	return r, nil
}

// notingTransport notes what a transport has confirmed.
type notingTransport struct {
	transports.Transport
	rig *outboxRig
	l   *ledger
}

func (c *notingTransport) PublishBatch(ctx context.Context, batch []transports.Outgoing) error {
	payloads := make([][]byte, len(batch))
	for i, out := range batch {
		payloads[i] = out.Message.Payload
	}
	if err := c.Transport.(transports.BatchPublisher).PublishBatch(ctx, batch); err != nil {
		return err
	}
	return c.rig.sent(c.l, payloads...)
}

func (c *notingTransport) Publish(topic string, messages ...*message.Message) error {
	return errors.New("the relay publishes batches")
}

package patterns

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/examples/documents/internal/queue"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
	_ "github.com/gotidings/tidings/transports/memory"
	_ "github.com/gotidings/tidings/transports/rabbitmq"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// unique is a name of a benchmark's own.
func unique() string { return "bench-" + strings.ToLower(rand.Text()) }

// onEach runs a case on each transport.
func onEach(b *testing.B, run func(b *testing.B, transport transports.Transport)) {
	b.Helper()
	for _, transport := range []struct {
		name string
		open func(b *testing.B) transports.Transport
	}{
		{"memory", func(b *testing.B) transports.Transport { b.Helper(); return open(b, "memory://") }},
		{"rabbitmq", func(b *testing.B) transports.Transport { b.Helper(); return open(b, testserver.RabbitMQ(b)) }},
		{"postgres", func(b *testing.B) transports.Transport {
			b.Helper()
			db, cfg := postgres(b)
			return testsql.NewTransport(b, db, cfg)
		}},
	} {
		b.Run(transport.name, func(b *testing.B) { run(b, transport.open(b)) })
	}
}

// postgres is a database with a pool that does not connect anew for each of 64 callers.
func postgres(b *testing.B) (*sql.DB, tsql.Config) {
	b.Helper()
	db, cfg := testsql.Postgres(b)
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	return db, cfg
}

// open opens a transport for the time of a benchmark.
func open(b *testing.B, url string) transports.Transport {
	b.Helper()
	transport, err := transports.Open(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := transport.Close(); err != nil {
			b.Error(err)
		}
	})
	return transport
}

// start starts a bus that tells of the jobs which it gets; its queue goes with the benchmark.
func start(b *testing.B, transport transports.Transport, topic string, a *arrivals) *bus.Bus {
	b.Helper()
	events := newBus(b, transport, topic)
	bus.Subscribe(events, "jobs", func(_ context.Context, job Job) error {
		a.arrived(job.N)
		return nil
	}, bus.Concurrency(64), bus.WithoutDedup())
	if err := events.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := events.Shutdown(context.Background()); err != nil {
			b.Error(err)
		}
		remove(b, transport, topic+".jobs")
	})
	return events
}

func newBus(b *testing.B, transport transports.Transport, topic string) *bus.Bus {
	b.Helper()
	events, err := bus.New(transport, bus.Config{Source: topic})
	if err != nil {
		b.Fatal(err)
	}
	bus.Register[Job](events, topic)
	return events
}

func remove(b *testing.B, transport transports.Transport, subscription string) {
	b.Helper()
	if remover, ok := transport.(transports.SubscriptionRemover); ok {
		if err := remover.RemoveSubscription(context.Background(), subscription); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkEvent publishes an event, and ends when its subscriber has handled it.
func BenchmarkEvent(b *testing.B) {
	onEach(b, func(b *testing.B, transport transports.Transport) {
		b.Helper()
		var a arrivals
		events := start(b, transport, unique(), &a)
		measure(b, func(ctx context.Context, n int64) error {
			return a.sent(ctx, n, func(ctx context.Context, job Job) error { return events.Publish(ctx, job) })
		})
	})
}

// BenchmarkQueue is the same through a queue processor that settles each message.
func BenchmarkQueue(b *testing.B) {
	onEach(b, func(b *testing.B, transport transports.Transport) {
		b.Helper()
		var a arrivals
		topic := unique()
		events := newBus(b, transport, topic)
		p, err := queue.New(queue.Config[Job]{
			Transport: transport, Name: topic + ".jobs", Topics: []string{topic}, Concurrency: 64,
			Handle: func(_ context.Context, d queue.Delivery[Job]) queue.Settlement {
				a.arrived(d.Body.N)
				return queue.Complete()
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		measure(b, func(ctx context.Context, n int64) error {
			return a.sent(ctx, n, func(ctx context.Context, job Job) error { return events.Publish(ctx, job) })
		})
		if err := p.Stop(context.Background()); err != nil {
			b.Error(err)
		}
		remove(b, transport, topic+".jobs")
	})
}

// BenchmarkOutbox commits an event with a row of business data, and ends when a subscriber
// has handled it: of the database itself, or of RabbitMQ, to which a relay sends it.
func BenchmarkOutbox(b *testing.B) {
	cases := map[string]func(b *testing.B, ob *outbox.Outbox) transports.Transport{
		"postgres": func(_ *testing.B, ob *outbox.Outbox) transports.Transport { return ob.Transport() },
		"postgres-to-rabbitmq": func(b *testing.B, ob *outbox.Outbox) transports.Transport {
			b.Helper()
			broker := open(b, testserver.RabbitMQ(b))
			relay, err := outbox.NewRelay(ob, outbox.RelayConfig{Name: "bench", To: broker})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() {
				if err := relay.Run(ctx); err != nil {
					b.Error(err)
				}
			})
			b.Cleanup(func() {
				cancel()
				running.Wait()
			})
			return broker
		},
	}
	for name, broker := range cases {
		b.Run(name, func(b *testing.B) {
			var a arrivals
			topic := unique()
			db, cfg := postgres(b)
			ob, err := outbox.New(b.Context(), outbox.Config{DB: db, Dialect: cfg.Dialect, Schema: cfg.Schema, Prefix: cfg.Prefix, Source: topic})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				if err := ob.Close(); err != nil {
					b.Error(err)
				}
			})
			table := cfg.Schema + ".business"
			if _, err := db.ExecContext(b.Context(), "create table "+table+" (n bigint primary key)"); err != nil {
				b.Fatal(err)
			}
			start(b, broker(b, ob), topic, &a)
			measure(b, func(ctx context.Context, n int64) error {
				return a.sent(ctx, n, func(ctx context.Context, job Job) error {
					return ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error {
						if _, err := tx.ExecContext(ctx, "insert into "+table+" values ($1)", n); err != nil {
							return err
						}
						return ob.Publish(ctx, tx, named{job, topic})
					})
				})
			})
		})
	}
}

// named is a job that knows its type, as the outbox needs it.
type named struct {
	Job
	topic string
}

func (n named) EventType() string { return n.topic }

func (n named) MarshalJSON() ([]byte, error) { return json.Marshal(n.Job) }

// BenchmarkReplay sends stored events again, to a handler in memory.
func BenchmarkReplay(b *testing.B) {
	topic := unique()
	db, cfg := postgres(b)
	log := testsql.NewTransport(b, db, cfg)
	store, err := eventstore.New(b.Context(), eventstore.Config{Log: log})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	publisher := newBus(b, log, topic)
	const stored = 20_000
	batch := make([]any, 500)
	for i := range batch {
		batch[i] = Job{int64(i), text}
	}
	for range stored / len(batch) {
		if err := publisher.PublishAll(b.Context(), batch...); err != nil {
			b.Fatal(err)
		}
	}
	target := open(b, "memory://")
	var handled atomic.Int64
	all := make(chan struct{}, 1)
	reader := newBus(b, target, topic)
	bus.Subscribe(reader, "projection", func(context.Context, Job) error {
		if handled.Add(1)%stored == 0 {
			all <- struct{}{}
		}
		return nil
	}, bus.WithoutDedup())
	if err := reader.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		_, err := store.Replay(b.Context(), target, eventstore.Replay{Subscription: topic + ".projection"})
		if err != nil {
			b.Fatal(err)
		}
		<-all
	}
	b.ReportMetric(float64(stored*b.N)/b.Elapsed().Seconds(), "per-s")
	b.ReportMetric(0, "ns/op")
	if err := reader.Shutdown(context.Background()); err != nil {
		b.Error(err)
	}
}

package eventstoretest

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// deadline is how long to wait for what must happen.
const deadline = 2 * time.Minute

// world is a store, and the transport that replays go to.
type world struct {
	store  *eventstore.Store
	target transports.Transport
	log    *tsql.Transport // nil in memory
	db     *sql.DB
	cfg    tsql.Config
	add    func(batch ...transports.Outgoing) error
}

var databases = map[string]func(testing.TB) (*sql.DB, tsql.Config){"postgres": testsql.Postgres, "mariadb": testsql.MariaDB, "sqlite": testsql.SQLite}

// eachWorld runs a test on every kind of store, with and without an index.
func eachWorld(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		target, err := memory.New(memory.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = target.Close() })
		w := &world{target: target, store: newStore(t, eventstore.Config{})}
		w.add = func(batch ...transports.Outgoing) error {
			return w.store.Record(func(context.Context, []transports.Outgoing) error { return nil })(t.Context(), batch)
		}
		fn(t, w)
	})
	for name, open := range databases {
		for _, index := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s index %t", name, index), func(t *testing.T) {
				t.Parallel()
				fn(t, newWorld(t, open, eventstore.Config{Index: index, FollowInterval: -1}))
			})
		}
	}
}

func newWorld(t *testing.T, open func(testing.TB) (*sql.DB, tsql.Config), cfg eventstore.Config) *world {
	t.Helper()
	db, tcfg := open(t)
	tr := testsql.NewTransport(t, db, tcfg)
	cfg.Log = tr
	w := &world{target: tr, log: tr, db: db, cfg: tcfg, store: newStore(t, cfg)}
	w.add = func(batch ...transports.Outgoing) error { return tr.PublishBatch(t.Context(), batch) }
	return w
}

func newStore(t *testing.T, cfg eventstore.Config) *eventstore.Store {
	t.Helper()
	store, err := eventstore.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// event is a message to publish; pairs are attributes.
func event(topic, id string, pairs ...string) transports.Outgoing {
	msg := message.NewMessage(id, []byte(`{"n":"`+id+`"}`))
	msg.Metadata["ce_source"] = "test"
	msg.Metadata["ce_type"] = topic
	msg.Metadata["ce_time"] = "2020-01-02T03:04:05Z"
	for i := 0; i < len(pairs); i += 2 {
		msg.Metadata["ce_"+pairs[i]] = pairs[i+1]
	}
	return transports.Outgoing{Topic: topic, Message: msg}
}

func (w *world) publish(t *testing.T, batch ...transports.Outgoing) {
	t.Helper()
	if err := w.add(batch...); err != nil {
		t.Fatal(err)
	}
}

// subscribe declares a subscription and returns its deliveries.
func (w *world) subscribe(t *testing.T, name string, topics ...string) <-chan *message.Message {
	t.Helper()
	ch, err := w.target.Subscribe(t.Context(), transports.Subscription{Name: name, Topics: topics, Concurrency: 1})
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// receive acknowledges the next n messages.
func receive(t *testing.T, ch <-chan *message.Message, n int) []*message.Message {
	t.Helper()
	var got []*message.Message
	timeout := time.After(deadline)
	for len(got) < n {
		select {
		case msg, ok := <-ch:
			if !ok {
				t.Fatalf("the channel is closed after %d of %d messages", len(got), n)
			}
			msg.Ack()
			got = append(got, msg)
		case <-timeout:
			t.Fatalf("%d of %d messages arrive in %s", len(got), n, deadline)
		}
	}
	return got
}

// waiting is how many messages a subscription has, as far as its transport can tell.
func (w *world) waiting(t *testing.T, name string) int {
	t.Helper()
	d, err := w.target.(transports.DepthReporter).Depth(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return d.Ready + max(d.Delayed, 0) + max(d.InFlight, 0) + d.Poisoned
}

// wantEmpty waits until a subscription, whose deliveries are settled in the background, has
// nothing.
func (w *world) wantEmpty(t *testing.T, name string) {
	t.Helper()
	n := w.waiting(t, name)
	for end := time.Now().Add(deadline); n > 0 && time.Now().Before(end); n = w.waiting(t, name) {
		time.Sleep(5 * time.Millisecond)
	}
	if n != 0 {
		t.Errorf("the subscription %s has %d messages", name, n)
	}
}

func ids(events []eventstore.Event) []string {
	var list []string
	for _, e := range events {
		list = append(list, e.Metadata.ID)
	}
	return list
}

// execute runs a statement behind the store's back.
func execute(t *testing.T, w *world, query string, args ...any) {
	t.Helper()
	res, err := w.db.ExecContext(t.Context(), w.log.Log().Write(query), args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("%s: %d rows, %v", query, n, err)
	}
}

func memoryTransport(t *testing.T) *memory.Transport {
	t.Helper()
	tr, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

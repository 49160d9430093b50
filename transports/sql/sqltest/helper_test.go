package sqltest

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// deadline is how long to wait for what must happen, and quiet how long to listen where
// nothing may.
const (
	deadline = 3 * time.Minute
	quiet    = 200 * time.Millisecond
)

func newMessage(id string) *message.Message {
	msg := message.NewMessage(id, []byte(id))
	msg.Metadata["ce_source"] = "test"
	return msg
}

func outgoing(topic string, ids ...string) []transports.Outgoing {
	batch := make([]transports.Outgoing, len(ids))
	for i, id := range ids {
		batch[i] = transports.Outgoing{Topic: topic, Message: newMessage(id)}
	}
	return batch
}

func publish(t *testing.T, tr *tsql.Transport, topic string, ids ...string) {
	t.Helper()
	if err := tr.PublishBatch(t.Context(), outgoing(topic, ids...)); err != nil {
		t.Fatalf("publish: %v", err)
	}
}

func subscribe(ctx context.Context, t *testing.T, tr *tsql.Transport, name string, concurrency int, topics ...string) <-chan *message.Message {
	t.Helper()
	ch, err := tr.Subscribe(ctx, transports.Subscription{Name: name, Topics: topics, Concurrency: concurrency})
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	return ch
}

func receive(t *testing.T, ch <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-ch:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return msg
	case <-time.After(deadline):
		t.Fatalf("nothing arrives in %s", deadline)
		return nil
	}
}

// ackInOrder wants these ids, in this order.
func ackInOrder(t *testing.T, ch <-chan *message.Message, ids ...string) {
	t.Helper()
	for _, id := range ids {
		msg := receive(t, ch)
		msg.Ack()
		if msg.UUID != id {
			t.Fatalf("received %q; want %q of %q", msg.UUID, id, ids)
		}
	}
}

// ackAll wants these ids, in any order.
func ackAll(t *testing.T, ch <-chan *message.Message, ids ...string) {
	t.Helper()
	var got []string
	for range ids {
		msg := receive(t, ch)
		msg.Ack()
		got = append(got, msg.UUID)
	}
	slices.Sort(got)
	want := slices.Sorted(slices.Values(ids))
	if !slices.Equal(got, want) {
		t.Fatalf("received %q; want %q", got, want)
	}
}

func wantQuiet(t *testing.T, ch <-chan *message.Message) {
	t.Helper()
	select {
	case msg, ok := <-ch:
		if ok {
			t.Fatalf("received %q; want nothing", msg.UUID)
		}
	case <-time.After(quiet):
	}
}

func begin(t *testing.T, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func publishTx(t *testing.T, tr *tsql.Transport, tx *sql.Tx, topic string, ids ...string) {
	t.Helper()
	if err := tr.PublishTx(t.Context(), tx, outgoing(topic, ids...)...); err != nil {
		t.Fatalf("publish in a transaction: %v", err)
	}
}

func commit(t *testing.T, tx *sql.Tx) {
	t.Helper()
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func execute(t *testing.T, q tsql.Tx, query string, args ...any) {
	t.Helper()
	if _, err := q.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// scalar returns the number that a query finds.
func scalar(t *testing.T, db *sql.DB, query string) int64 {
	t.Helper()
	var n int64
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// eventually waits until a query finds that number.
func eventually(t *testing.T, db *sql.DB, want int64, query string) {
	t.Helper()
	end := time.After(deadline)
	for {
		got := scalar(t, db, query)
		if got == want {
			return
		}
		select {
		case <-end:
			t.Fatalf("%s: %d; want %d", query, got, want)
		case <-time.After(120 * time.Millisecond): // InnoDB's own tables are renewed when nobody looks for 100 ms
		}
	}
}

func numbers(from, to int) []string {
	var ids []string
	for i := from; i <= to; i++ {
		ids = append(ids, strconv.Itoa(i))
	}
	return ids
}

// backend is a database that a schedule runs on.
type backend struct {
	*sql.DB
	cfg tsql.Config
}

func (b backend) table(name string) string {
	if b.cfg.Schema != "" {
		return `"` + b.cfg.Schema + `"."tidings_` + name + `"`
	}
	return cmp.Or(b.cfg.Prefix, "tidings_") + name
}

// url is the URL of the database, with parameters.
func (b backend) url(t *testing.T, parameters ...string) string {
	t.Helper()
	parameters = append(parameters, "schema", b.cfg.Schema, "prefix", b.cfg.Prefix)
	if b.cfg.Dialect == tsql.SQLite {
		var seq int
		var name, file string
		if err := b.QueryRowContext(t.Context(), "pragma database_list").Scan(&seq, &name, &file); err != nil {
			t.Fatal(err)
		}
		return withParameters(t, "sqlite:"+file, parameters...)
	}
	return withParameters(t, testsql.Servers[b.cfg.Dialect].URL(), parameters...)
}

// backends are the databases that the schedules run on.
var backends = map[string]func(tb testing.TB) backend{
	"postgres": func(tb testing.TB) backend { tb.Helper(); db, cfg := testsql.Postgres(tb); return backend{db, cfg} },
	"mysql":    func(tb testing.TB) backend { tb.Helper(); db, cfg := testsql.MariaDB(tb); return backend{db, cfg} },
	"sqlite":   func(tb testing.TB) backend { tb.Helper(); db, cfg := testsql.SQLite(tb); return backend{db, cfg} },
}

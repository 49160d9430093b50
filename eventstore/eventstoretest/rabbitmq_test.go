package eventstoretest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/rabbitmq"
)

// broker is a RabbitMQ server that replays go to, with names of the test's own.
type broker struct {
	*rabbitmq.Transport
	url, id string
}

// newBroker has subscriptions of these names removed in the end.
func newBroker(t *testing.T, names ...string) *broker {
	t.Helper()
	b := &broker{url: testserver.RabbitMQ(t), id: "replaytest-" + uuid.NewString()[:13]}
	var err error
	if b.Transport, err = rabbitmq.Open(t.Context(), rabbitmq.Config{URLs: []string{b.url}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range names {
			if err := b.RemoveSubscription(context.Background(), b.id+"."+name); err != nil {
				t.Error(err)
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// last publishes an event, which comes after all that a replay has sent.
func (b *broker) last(t *testing.T, topic string) {
	t.Helper()
	msg := event(topic, "last").Message
	msg.Payload = []byte(`{"key":-1}`)
	if err := b.Publish(topic, msg); err != nil {
		t.Fatal(err)
	}
}

// toRabbitMQ is a store on PostgreSQL whose replays go to RabbitMQ.
func toRabbitMQ(t *testing.T, b *broker) *world {
	t.Helper()
	w := newWorld(t, testsql.Postgres, eventstore.Config{})
	w.target = b
	return w
}

// interrupted begins a replay and returns after so many of its batches.
func interrupted(t *testing.T, w *world, r eventstore.Replay, batches int) {
	t.Helper()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	r.OnProgress = func(eventstore.Progress) {
		if batches--; batches == 0 {
			cancel(enough)
		}
	}
	if _, err := w.store.Replay(ctx, w.target, r); !errors.Is(err, enough) {
		t.Fatal(err)
	}
}

// The events of a log arrive at a subscription of another broker once, in order and as they
// were, also when the replay was interrupted; no other subscription gets any.
func TestReplayToRabbitMQ(t *testing.T) {
	t.Parallel()
	b := newBroker(t, "model", "other")
	w := toRabbitMQ(t, b)
	topic, model := b.id+".a", b.id+".model"
	other := w.subscribe(t, b.id+".other", topic)
	const n, batch = 500, 50
	var all []transports.Outgoing
	for i := range n {
		all = append(all, event(topic, fmt.Sprint(i)))
	}
	w.publish(t, all...)
	interrupted(t, w, eventstore.Replay{ID: "r", Subscription: model, Declare: []string{topic}, Control: eventstore.Control{Batch: batch}}, 3)
	p, err := w.store.Replays(t.Context())
	if err != nil || len(p) != 1 || p[0].Sent != 3*batch || p[0].Done {
		t.Fatalf("replays %+v, %v; want %d sent", p, err, 3*batch)
	}
	done, err := w.store.Resume(t.Context(), b, "r", eventstore.Control{})
	if err != nil || done.Sent != n || !done.Done {
		t.Fatalf("progress %+v, %v", done, err)
	}
	b.last(t, topic)
	received := receive(t, w.subscribe(t, model, topic), n+1)
	if id := received[n].UUID; id != "last" { // something came twice
		t.Errorf("the last message is %s", id)
	}
	for i, msg := range received[:n] {
		id := fmt.Sprint(i)
		if msg.UUID != id || string(msg.Payload) != `{"n":"`+id+`"}` || msg.Metadata["ce_time"] != "2020-01-02T03:04:05Z" ||
			msg.Metadata["ce_replayid"] != "r" || msg.Metadata["ce_type"] != topic {
			t.Fatalf("message %d: %s %s %v", i, msg.UUID, msg.Payload, msg.Metadata)
		}
	}
	if id := receive(t, other, 1)[0].UUID; id != "last" {
		t.Errorf("another subscription got %s", id)
	}
}

// failing is a transport whose broker confirms none of a batch, of which half arrives.
type failing struct {
	*broker
	left int // batches that succeed before
}

func (f *failing) RequeueBatch(ctx context.Context, subscription string, messages ...*message.Message) error {
	if f.left--; f.left >= 0 {
		return f.broker.RequeueBatch(ctx, subscription, messages...)
	}
	if err := f.broker.RequeueBatch(ctx, subscription, messages[:len(messages)/2]...); err != nil {
		return err
	}
	return errors.New("the connection is lost")
}

// The position stays before a batch that was not confirmed, and no transaction is open while
// that is awaited.
func TestReplayIsSavedBehindConfirms(t *testing.T) {
	t.Parallel()
	b := newBroker(t, "model")
	w := toRabbitMQ(t, b)
	topic, model := b.id+".a", b.id+".model"
	var all []transports.Outgoing
	for i := range 30 {
		all = append(all, event(topic, fmt.Sprint(i)))
	}
	w.publish(t, all...)
	_, err := w.store.Replay(t.Context(), &failing{b, 1}, eventstore.Replay{ID: "r", Subscription: model, Declare: []string{topic}, Control: eventstore.Control{Batch: 10}})
	if err == nil || !strings.Contains(err.Error(), "the connection is lost") {
		t.Fatalf("error %v", err)
	}
	if p, err := w.store.Replays(t.Context()); err != nil || len(p) != 1 || p[0].Sent != 10 {
		t.Fatalf("replays %+v, %v; want 10 sent", p, err)
	}
	if p, err := w.store.Resume(t.Context(), b, "r", eventstore.Control{}); err != nil || p.Sent != 30 {
		t.Fatalf("progress %+v, %v", p, err)
	}
	var got []string
	for _, msg := range receive(t, w.subscribe(t, model, topic), 35) {
		got = append(got, msg.UUID)
	}
	var want []string
	for i := range 15 {
		want = append(want, fmt.Sprint(i))
	}
	for i := 10; i < 30; i++ {
		want = append(want, fmt.Sprint(i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("received %q\nwant     %q", got, want)
	}
}

// effect is one event of a read model that depends on order.
type effect struct {
	Event string `json:"event"`
	Key   int    `json:"key"`
}

func (effect) EventType() string { return "" } // it is registered by a name of the test's own

// A replay to another broker that is killed at random moments, again and again, sends every
// event, its position is never beyond what is there, and a read model that knows copies is
// the same as one from a replay that nobody has killed.
func TestReplayToRabbitMQIsKilled(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := newBroker(t, "killed", "whole")
	w := toRabbitMQ(t, b)
	topic := b.id + ".a"
	const n = 600
	var all []transports.Outgoing
	for i := range n {
		e := event(topic, fmt.Sprint(i))
		e.Message.Payload = fmt.Appendf(nil, `{"event":"%d","key":%d}`, i, i%7)
		all = append(all, e)
	}
	w.publish(t, all...)
	killed := b.id + ".killed"
	interrupted(t, w, eventstore.Replay{ID: "r", Subscription: killed, Declare: []string{topic}, Control: eventstore.Control{Batch: 1}}, 1)
	far := newWire(t, b.url)
	text, err := json.Marshal(order{Driver: "pgx", DSN: w.dsn(t), Schema: w.cfg.Schema, Replay: "r", Broker: far.url})
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // moments, no secrets
	const kills = 6
	for i := range kills {
		after, moment := 1+random.IntN(4), time.Duration(random.IntN(40_000))*time.Microsecond
		loses := func() {}
		if i%2 == 0 { // with what is on the way, as when the machine dies
			loses = far.cut
		}
		if runChild(t, self, string(text), after, moment, loses) {
			t.Fatal("the replay was done before it was killed")
		}
		p, err := w.store.Replays(t.Context())
		if err != nil || len(p) != 1 {
			t.Fatalf("replays %+v, %v", p, err)
		}
		// What is confirmed is in the queue for good, though a count of it may be a moment old.
		for end := time.Now().Add(deadline); int64(w.waiting(t, killed)) < p[0].Sent; {
			if time.Now().After(end) {
				t.Fatalf("the position is behind %d events; the queue has %d", p[0].Sent, w.waiting(t, killed))
			}
		}
	}
	if !runChild(t, self, string(text), n, 0, nil) {
		t.Fatal("the last child has not finished the replay")
	}
	t.Logf("%d copies", w.waiting(t, killed)-n)

	whole := b.id + ".whole"
	if p, err := w.store.Replay(t.Context(), b, eventstore.Replay{Subscription: whole, Declare: []string{topic}}); err != nil || p.Sent != n {
		t.Fatalf("progress %+v, %v", p, err)
	}
	b.last(t, topic)
	got, want := w.readModel(t, b, topic, "killed"), w.readModel(t, b, topic, "whole")
	if !slices.Equal(got, want) || len(want) != 7 {
		t.Errorf("the read model of the killed replay is\n%q\nof the other\n%q", got, want)
	}
}

// runChild has a child go on with the replay, and calls loses and kills it, some time after it
// has told of so many batches. It reports whether the child has finished the replay.
func runChild(t *testing.T, self, text string, after int, moment time.Duration, loses func()) (done bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childEnv+"="+text)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		done = done || lines.Text() == "done"
		if seen++; seen == after {
			time.AfterFunc(moment, func() {
				loses()
				_ = cmd.Process.Kill() // it may have ended
			})
		}
	}
	if err := cmd.Wait(); seen < after && !done {
		t.Fatalf("the child ended: %v\n%s", err, &stderr)
	}
	return done
}

// readModel lets a subscription handle all that it has, with an inbox, and returns the chain of each
// key's events.
func (w *world) readModel(t *testing.T, b *broker, topic, name string) []string {
	t.Helper()
	ib, err := inbox.New(t.Context(), inbox.Config{DB: w.db, Schema: w.cfg.Schema})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ib.Close() }()
	reader, err := bus.New(b, bus.Config{Source: b.id})
	if err != nil {
		t.Fatal(err)
	}
	bus.Register[effect](reader, topic)
	table := `"` + w.cfg.Schema + `".model_` + name
	if _, err := w.db.ExecContext(t.Context(), `create table `+table+` (key int primary key, chain text)`); err != nil {
		t.Fatal(err)
	}
	last := make(chan struct{})
	inbox.Subscribe(reader, ib, name, func(ctx context.Context, tx *sql.Tx, e effect) error {
		if e.Key == -1 {
			close(last)
			return nil
		}
		md, _ := events.MetadataFrom(ctx)
		var chain string
		err := tx.QueryRowContext(ctx, `select chain from `+table+` where key = $1`, e.Key).Scan(&chain)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		sum := sha256.Sum256([]byte(chain + " " + e.Event + " " + md.ID))
		_, err = tx.ExecContext(ctx, `insert into `+table+` values ($1, $2) on conflict (key) do update set chain = excluded.chain`, e.Key, hex.EncodeToString(sum[:]))
		return err
	}, bus.Concurrency(1))
	if err := reader.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-last:
	case <-time.After(deadline):
		t.Fatalf("the subscription %s has %d events left", name, w.waiting(t, b.id+"."+name))
	}
	stop(t, reader)
	rows, err := w.db.QueryContext(t.Context(), `select key, chain from `+table+` order by key`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var model []string
	for rows.Next() {
		var key int
		var chain string
		if err := rows.Scan(&key, &chain); err != nil {
			t.Fatal(err)
		}
		model = append(model, fmt.Sprint(key, " ", chain))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return model
}

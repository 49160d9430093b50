package eventstoretest

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
	tsql "github.com/gotidings/tidings/transports/sql"
)

var replayed = flag.Int("events", 2000, "events of the replay tests; 100000 is a day")

func TestReplayGoesToOneSubscription(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(t *testing.T, w *world) {
		t.Helper()
		others := w.subscribe(t, "others", "#")
		w.publish(t, event("a", "1", "subject", "s"), event("b", "2"), event("a", "3", "subject", "s"))
		if w.log != nil {
			receive(t, others, 3)
		}
		var seen []eventstore.Progress
		p, err := w.store.Replay(t.Context(), w.target, eventstore.Replay{
			Subscription: "model", Declare: []string{"a", "b"}, Control: eventstore.Control{Batch: 2, OnProgress: func(p eventstore.Progress) { seen = append(seen, p) }},
		})
		if err != nil || !p.Done || p.Sent != 3 || p.Fraction != 1 || time.Since(p.Created).Abs() > time.Hour {
			t.Fatalf("progress %+v, %v", p, err)
		}
		if len(seen) < 2 || seen[0].Sent != 2 || seen[0].Done || !seen[len(seen)-1].Done || seen[0].Fraction <= 0 || seen[0].Fraction >= 1 {
			t.Errorf("progress was %+v", seen)
		}
		for i, msg := range receive(t, w.subscribe(t, "model", "a", "b"), 3) {
			want := fmt.Sprint(i + 1)
			if msg.UUID != want || string(msg.Payload) != `{"n":"`+want+`"}` || msg.Metadata["ce_time"] != "2020-01-02T03:04:05Z" ||
				msg.Metadata["ce_replayid"] != p.ID || transports.Topic(msg) == "" {
				t.Errorf("message %d: %s %s %v", i, msg.UUID, msg.Payload, msg.Metadata)
			}
		}
		w.wantEmpty(t, "others")
		select {
		case msg := <-others:
			t.Errorf("another subscription got %s", msg.UUID)
		default:
		}
		// Nothing of a replay is published.
		if page, err := w.store.List(t.Context(), eventstore.Listing{}); err != nil || len(page.Events) != 3 {
			t.Errorf("the store has %q, %v", ids(page.Events), err)
		}
	})
}

func TestReplayErrors(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(t *testing.T, w *world) {
		t.Helper()
		w.publish(t, event("a", "1", "subject", "s"))
		w.subscribe(t, "model", "#")
		now := time.Now()
		for name, tt := range map[string]struct {
			replay eventstore.Replay
			want   error
		}{
			"unknown subscription": {eventstore.Replay{Subscription: "none"}, transports.ErrNoSubscription},
			"no subscription":      {eventstore.Replay{}, eventstore.ErrInvalid},
			"future":               {eventstore.Replay{Subscription: "model", Query: eventstore.Query{From: now.Add(time.Hour)}}, eventstore.ErrEmptyRange},
			"past":                 {eventstore.Replay{Subscription: "model", Query: eventstore.Query{To: now.Add(-time.Hour)}}, eventstore.ErrEmptyRange},
			"no such type":         {eventstore.Replay{Subscription: "model", Query: eventstore.Query{Types: []string{"b"}}}, eventstore.ErrEmptyRange},
			"no such subject":      {eventstore.Replay{Subscription: "model", Query: eventstore.Query{Subject: "S"}}, eventstore.ErrEmptyRange},
			"backwards":            {eventstore.Replay{Subscription: "model", Query: eventstore.Query{From: now, To: now.Add(-1)}}, eventstore.ErrInvalid},
			"rate":                 {eventstore.Replay{Subscription: "model", Control: eventstore.Control{Rate: -1}}, eventstore.ErrInvalid},
			"batch":                {eventstore.Replay{Subscription: "model", Control: eventstore.Control{Batch: 5000}}, eventstore.ErrInvalid},
		} {
			if p, err := w.store.Replay(t.Context(), w.target, tt.replay); !errors.Is(err, tt.want) || p.Sent != 0 {
				t.Errorf("%s: %+v, %v; want %v", name, p, err, tt.want)
			}
		}
		if _, err := w.store.Resume(t.Context(), w.target, "none", eventstore.Control{}); !errors.Is(err, eventstore.ErrNoReplay) {
			t.Errorf("an unknown replay: %v", err)
		}
		if _, err := w.store.Replay(t.Context(), bare{w.target}, eventstore.Replay{Subscription: "model"}); !errors.Is(err, eventstore.ErrNoRequeuer) {
			t.Errorf("a transport without Requeue: %v", err)
		}
		if n := w.waiting(t, "model"); w.log == nil && n != 0 {
			t.Errorf("%d messages were sent", n)
		}
		if all, err := w.store.Replays(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("replays are left: %+v, %v", all, err)
		}
	})
}

// bare hides what a transport can besides.
type bare struct{ transports.Transport }

// What retention has deleted can't be replayed, and is not silently left out.
func TestReplayOfWhatIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testsql.SQLite, eventstore.Config{})
	w.publish(t, event("a", "1"), event("a", "2"))
	execute(t, w, `update {messages} set published_ms = published_ms - 3600000 where id = 1`)
	from := time.Now().Add(-2 * time.Hour)
	w.subscribe(t, "model", "#")
	execute(t, w, `delete from {messages} where id = 1`)
	if _, err := w.store.Replay(t.Context(), w.target, eventstore.Replay{Subscription: "model", Query: eventstore.Query{From: from}}); !errors.Is(err, eventstore.ErrExpired) {
		t.Errorf("error %v; want ErrExpired", err)
	}
	if p, err := w.store.Replay(t.Context(), w.target, eventstore.Replay{Subscription: "model"}); err != nil || p.Sent != 1 {
		t.Errorf("without a beginning: %+v, %v", p, err)
	}
}

// The deliveries of a batch are stored if and only if the position is: here its transaction
// fails at the commit, when all has been written.
func TestReplayMovesOnWithItsDeliveries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testsql.Postgres, eventstore.Config{})
	var batch []transports.Outgoing
	for i := range 7 {
		batch = append(batch, event("a", fmt.Sprint(i)))
	}
	w.publish(t, batch...)
	if err := w.log.DeclareSubscription(t.Context(), transports.Subscription{Name: "model", Topics: []string{"none"}, Concurrency: 1}, tsql.FromNow); err != nil {
		t.Fatal(err)
	}
	write := w.log.Log().Write
	refuse := func(eventstore.Progress) { // the second batch
		for _, query := range []string{
			`create or replace function refuse() returns trigger language plpgsql as $$ begin raise exception 'refused'; end $$`,
			`create constraint trigger refuse after update on {replays} deferrable initially deferred for each row execute function refuse()`,
		} {
			if _, err := w.db.ExecContext(t.Context(), write(query)); err != nil {
				t.Error(err)
			}
		}
	}
	p, err := w.store.Replay(t.Context(), w.target, eventstore.Replay{ID: "r", Subscription: "model", Control: eventstore.Control{Batch: 3, OnProgress: refuse}})
	if err == nil || !strings.Contains(err.Error(), "refused") || p.Sent != 3 {
		t.Fatalf("progress %+v, %v", p, err)
	}
	if n := w.waiting(t, "model"); n != 3 {
		t.Errorf("%d messages wait; want the 3 of the first batch", n)
	}
	if _, err := w.db.ExecContext(t.Context(), write(`drop trigger refuse on {replays}`)); err != nil {
		t.Fatal(err)
	}
	if p, err := w.store.Resume(t.Context(), w.target, "r", eventstore.Control{}); err != nil || p.Sent != 7 || !p.Done {
		t.Fatalf("progress %+v, %v", p, err)
	}
	if n := w.waiting(t, "model"); n != 7 {
		t.Errorf("%d messages wait; want 7", n)
	}
}

// A replay whose target fails goes on where it was, with nothing twice.
func TestReplayResumes(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(t *testing.T, w *world) {
		t.Helper()
		var batch []transports.Outgoing
		for i := range 10 {
			batch = append(batch, event("a", fmt.Sprint(i)))
		}
		w.publish(t, batch...)
		ctx, cancel := context.WithCancel(t.Context())
		model := w.subscribe(t, "model", "none")
		r := eventstore.Replay{ID: "r", Subscription: "model", Control: eventstore.Control{Batch: 3, OnProgress: func(eventstore.Progress) { cancel() }, Rate: 1}}
		p, err := w.store.Replay(ctx, w.target, r)
		if !errors.Is(err, context.Canceled) || p.Sent != 3 || p.Done {
			t.Fatalf("progress %+v, %v", p, err)
		}
		w.publish(t, event("a", "later")) // is not of the range
		r.Control = eventstore.Control{}
		other := r
		other.Query.Subject = "x"
		if _, err := w.store.Replay(t.Context(), w.target, other); !errors.Is(err, eventstore.ErrInvalid) {
			t.Errorf("another query: %v", err)
		}
		if p, err = w.store.Replay(t.Context(), w.target, r); err != nil || p.Sent != 10 || !p.Done {
			t.Fatalf("progress %+v, %v", p, err)
		}
		for i, msg := range receive(t, model, 10) {
			if msg.UUID != fmt.Sprint(i) {
				t.Errorf("message %d is %s", i, msg.UUID)
			}
		}
		if p, err = w.store.Resume(t.Context(), w.target, "r", eventstore.Control{}); err != nil || p.Sent != 10 {
			t.Errorf("of one that is done: %+v, %v", p, err)
		}
		if all, err := w.store.Replays(t.Context()); err != nil || len(all) != 1 || all[0].ID != "r" || !all[0].Done {
			t.Errorf("replays %+v, %v", all, err)
		}
	})
}

// Of two processes that go on with one replay, each batch is sent by one.
func TestReplayTwiceAtOnce(t *testing.T) {
	t.Parallel()
	for name, open := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, open, eventstore.Config{})
			const n = 300
			var batch []transports.Outgoing
			for i := range n {
				batch = append(batch, event("a", fmt.Sprint(i)))
			}
			w.publish(t, batch...)
			model := w.subscribe(t, "model", "none")
			stop := errors.New("stop")
			ctx, cancel := context.WithCancelCause(t.Context())
			_, err := w.store.Replay(ctx, w.target, eventstore.Replay{ID: "r", Subscription: "model", Control: eventstore.Control{Batch: 1, Rate: 1, OnProgress: func(eventstore.Progress) { cancel(stop) }}})
			if !errors.Is(err, stop) {
				t.Fatal(err)
			}
			var running sync.WaitGroup
			done := make(chan error, 4)
			for range 4 {
				running.Go(func() {
					_, err := w.store.Resume(t.Context(), w.target, "r", eventstore.Control{Batch: 10})
					done <- err
				})
			}
			running.Wait()
			won := 0
			for range 4 {
				if err := <-done; err == nil {
					won++
				} else if !errors.Is(err, eventstore.ErrReplayTaken) {
					t.Errorf("error %v; want ErrReplayTaken", err)
				}
			}
			if won == 0 {
				t.Error("nobody has finished")
			}
			seen := make(map[string]bool)
			for _, msg := range receive(t, model, n) {
				if seen[msg.UUID] {
					t.Errorf("%s was sent twice", msg.UUID)
				}
				seen[msg.UUID] = true
			}
			w.wantEmpty(t, "model")
		})
	}
}

// A range that begins with an open transaction waits for it.
func TestReplayWaitsForWhatMayStillCommit(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"postgres", "mariadb"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, databases[name], eventstore.Config{})
			w.publish(t, event("a", "1"))
			model := w.subscribe(t, "model", "none")
			tx, err := w.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.log.PublishTx(t.Context(), tx, event("a", "2")); err != nil {
				t.Fatal(err)
			}
			w.publish(t, event("a", "3"))
			sent := make(chan int64, 10)
			result := make(chan error, 1)
			go func() {
				p, err := w.store.Replay(t.Context(), w.target, eventstore.Replay{Subscription: "model", Control: eventstore.Control{OnProgress: func(p eventstore.Progress) { sent <- p.Sent }}})
				if err == nil && p.Sent != 3 {
					err = fmt.Errorf("sent %d", p.Sent)
				}
				result <- err
			}()
			if n := <-sent; n != 1 {
				t.Errorf("sent %d while the second is open", n)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := <-result; err != nil {
				t.Fatal(err)
			}
			for i, msg := range receive(t, model, 3) {
				if msg.UUID != fmt.Sprint(i+1) {
					t.Errorf("message %d is %s", i, msg.UUID)
				}
			}
		})
	}
}

type changed struct {
	Key   int `json:"key"`
	Value int `json:"value"`
}

func (changed) EventType() string { return "changed" }

// model is a read model that depends on the order: of each key the chain of its values.
type model struct {
	mu     sync.Mutex
	chains map[int][sha256.Size]byte
	seen   map[string]int
	n      int
	full   chan struct{} // closed when it has had so many
	want   int
}

func newModel(want int) *model {
	return &model{chains: make(map[int][sha256.Size]byte), seen: make(map[string]int), full: make(chan struct{}), want: want}
}

func (m *model) apply(ctx context.Context, e changed) error {
	md, _ := events.MetadataFrom(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.chains[e.Key]
	m.chains[e.Key] = sha256.Sum256(append(old[:], fmt.Sprint(e.Value, md.ID, md.Time.UnixNano())...))
	m.seen[md.ID]++
	if m.n++; m.n == m.want {
		close(m.full)
	}
	return nil
}

func (m *model) wait(t *testing.T) {
	t.Helper()
	select {
	case <-m.full:
	case <-time.After(5 * time.Minute):
		m.mu.Lock()
		defer m.mu.Unlock()
		t.Fatalf("%d of %d events", m.n, m.want)
	}
}

// equal reports whether two models are the same, and whole.
func (m *model) equal(other *model) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n != m.want || len(m.seen) != m.want || other.n != other.want {
		return fmt.Errorf("%d events, %d different, of %d", m.n, len(m.seen), m.want)
	}
	for key, chain := range m.chains {
		if other.chains[key] != chain {
			return fmt.Errorf("key %d differs", key)
		}
	}
	return nil
}

// Two replays into new read models give what the live one has, and the live one sees none of them.
func TestReplayIntoReadModels(t *testing.T) {
	t.Parallel()
	for name, open := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := *replayed
			w := newWorld(t, open, eventstore.Config{})
			b, err := bus.New(w.target, bus.Config{Source: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			live, first, second := newModel(n), newModel(n), newModel(n)
			bus.Subscribe(b, "live", live.apply, bus.Ordered())
			if err := b.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer stop(t, b)
			const batch = 500
			for i := 0; i < n; i += batch {
				var part []any
				for j := i; j < min(i+batch, n); j++ {
					part = append(part, changed{Key: j % 10, Value: j})
				}
				if err := b.PublishAll(t.Context(), part...); err != nil {
					t.Fatal(err)
				}
			}
			live.wait(t)
			for i, m := range []*model{first, second} {
				began := time.Now()
				p, err := w.store.Replay(t.Context(), w.target, eventstore.Replay{Subscription: fmt.Sprint("shop.model-", i), Declare: []string{"changed"}})
				if err != nil || p.Sent != int64(n) {
					t.Fatalf("progress %+v, %v", p, err)
				}
				stored := time.Since(began)
				reader, err := bus.New(w.target, bus.Config{Source: "shop"})
				if err != nil {
					t.Fatal(err)
				}
				bus.Subscribe(reader, fmt.Sprint("model-", i), func(ctx context.Context, e changed) error {
					if id, ok := eventstore.ReplayID(ctx); !ok || id != p.ID {
						t.Errorf("replay id %q, %t; want %q", id, ok, p.ID)
					}
					return m.apply(ctx, e)
				}, bus.Concurrency(1))
				if err := reader.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				m.wait(t)
				stop(t, reader)
				t.Logf("%d events: stored for the subscription in %s, handled after %s", n, stored.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
			}
			for name, m := range map[string]*model{"first": first, "second": second, "live": live} {
				if err := m.equal(first); err != nil {
					t.Errorf("the %s model: %v", name, err)
				}
			}
			if left := w.waiting(t, "shop.live"); left != 0 {
				t.Errorf("the live subscription has %d", left)
			}
		})
	}
}

func stop(t *testing.T, b *bus.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// What no longer decodes is poisoned by the subscription that it is sent to, and the others
// arrive; deduplication takes a replay for another event, and its copies for copies.
func TestReplayOfWhatNoLongerDecodes(t *testing.T) {
	t.Parallel()
	target, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = target.Close() }()
	store := newStore(t, eventstore.Config{})
	b, err := bus.New(target, bus.Config{Source: "shop", PublishMiddleware: []bus.PublishMiddleware{store.Record}})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 10)
	bus.Subscribe(b, "model", func(ctx context.Context, e changed) error {
		id, _ := eventstore.ReplayID(ctx)
		got <- fmt.Sprint(e.Value, " ", id)
		return nil
	})
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer stop(t, b)
	if err := b.Publish(t.Context(), changed{Value: 1}); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "1 " {
		t.Errorf("handled %q", s)
	}
	old := event("changed", "old")
	old.Message.Payload = []byte(`{"value":"two"}`)
	if err := store.Record(func(context.Context, []transports.Outgoing) error { return nil })(t.Context(), []transports.Outgoing{old}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"r1", "r2"} {
		if p, err := store.Replay(t.Context(), target, eventstore.Replay{ID: id, Subscription: "shop.model"}); err != nil || p.Sent != 2 {
			t.Fatalf("progress %+v, %v", p, err)
		}
		if s := <-got; s != "1 "+id {
			t.Errorf("handled %q", s)
		}
	}
	poisoned := func() (n int) {
		for p, err := range target.Poisoned(t.Context(), "shop.model", transports.PoisonPage{}) {
			if err != nil || p.Message.UUID != "old" {
				t.Errorf("poisoned %+v, %v", p, err)
			}
			n++
		}
		return n
	}
	for end := time.Now().Add(deadline); poisoned() < 2 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := poisoned(); n != 2 { // once in each replay
		t.Errorf("%d poisoned", n)
	}
}

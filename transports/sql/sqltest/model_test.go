package sqltest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// model knows what has to arrive: every committed event in every subscription that
// takes it, and nothing else.
type model struct {
	mu        sync.Mutex
	committed map[string]commitment     // by event id
	acked     map[string]map[string]int // by subscription and event id
	created   map[string]time.Time      // when Subscribe returned
	takes     map[string]func(topic string) bool
}

// commitment is when an event was committed: not before begun and not after.
type commitment struct {
	topic string
	begun time.Time
}

func (m *model) commit(begun time.Time, batch []transports.Outgoing) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, out := range batch {
		m.committed[out.Message.UUID] = commitment{out.Topic, begun}
	}
}

func (m *model) ack(subscription, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acked[subscription][id]++
}

func (m *model) subscribed(subscription string, takes func(topic string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acked[subscription], m.created[subscription], m.takes[subscription] = make(map[string]int), time.Now(), takes
}

// faults lists what is missing, and with exactly what came more than once; what was never
// committed is always a fault.
func (m *model) faults(exactly bool) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var faults []string
	for subscription, acked := range m.acked {
		for id, c := range m.committed {
			n := acked[id]
			switch {
			case n == 0 && m.takes[subscription](c.topic) && c.begun.After(m.created[subscription]):
				faults = append(faults, subscription+" misses "+id)
			case n > 1 && exactly:
				faults = append(faults, fmt.Sprintf("%s had %s %d times", subscription, id, n))
			case n > 0 && !m.takes[subscription](c.topic):
				faults = append(faults, subscription+" got "+id+" of "+c.topic)
			}
		}
		for id := range acked {
			if _, ok := m.committed[id]; !ok {
				faults = append(faults, subscription+" got "+id+", which was rolled back")
			}
		}
	}
	return faults
}

// publishing is one publisher of the model: batches, transactions of random length that
// write elsewhere too or roll back, and savepoints.
func (m *model) publishing(ctx context.Context, b backend, tr *tsql.Transport, name string, seed uint64, rounds int) error {
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // reproducible
	pause := func(most time.Duration) { <-time.After(time.Duration(random.Int64N(int64(most)))) }
	n := 0
	batch := func() []transports.Outgoing {
		var out []transports.Outgoing
		for range 1 + random.IntN(5) {
			n++
			out = append(out, outgoing(fmt.Sprintf("t.%d", random.IntN(3)), fmt.Sprintf("%s-%d", name, n))...)
		}
		return out
	}
	inTx := func() error {
		tx, err := b.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		var written []transports.Outgoing
		if random.IntN(2) == 0 { // its transaction id is older than its numbers
			if _, err := tx.ExecContext(ctx, "insert into "+b.table("business")+" values (1)"); err != nil {
				return err
			}
			if b.cfg.Dialect != tsql.SQLite { // where it would hold up all writers
				pause(15 * time.Millisecond)
			}
		}
		for range 1 + random.IntN(3) {
			part := batch()
			undo := random.IntN(4) == 0
			if undo {
				if _, err := tx.ExecContext(ctx, "savepoint p"); err != nil {
					return err
				}
			}
			if err := tr.PublishTx(ctx, tx, part...); err != nil {
				return err
			}
			if undo {
				if _, err := tx.ExecContext(ctx, "rollback to savepoint p"); err != nil {
					return err
				}
			} else {
				written = append(written, part...)
			}
			if random.IntN(3) == 0 {
				pause(10 * time.Millisecond)
			}
		}
		if random.IntN(30) == 0 {
			pause(300 * time.Millisecond)
		}
		if random.IntN(6) == 0 {
			return tx.Rollback()
		}
		begun := time.Now()
		if err := tx.Commit(); err != nil {
			return err
		}
		m.commit(begun, written)
		return nil
	}
	for range rounds {
		var err error
		if random.IntN(2) == 0 {
			out, begun := batch(), time.Now()
			if err = tr.PublishBatch(ctx, out); err == nil {
				m.commit(begun, out)
			}
		} else if err = inTx(); err != nil && transient(err) {
			err = nil // nothing of it was committed
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// transient reports whether a transaction was the victim of another one.
func transient(err error) bool {
	return strings.Contains(err.Error(), "Deadlock") || strings.Contains(err.Error(), "Lock wait") || strings.Contains(err.Error(), "SQLITE_BUSY")
}

// consume acknowledges what comes, at random not the first time.
func (m *model) consume(subscription string, ch <-chan *message.Message, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // reproducible
	for msg := range ch {
		if random.IntN(20) == 0 {
			msg.Nack()
			continue
		}
		// The acknowledgement is counted before it is given: it may not be heard any
		// more. What is counted twice came twice.
		m.ack(subscription, msg.UUID)
		msg.Ack()
	}
}

func newModel() *model {
	return &model{
		committed: make(map[string]commitment), acked: make(map[string]map[string]int),
		created: make(map[string]time.Time), takes: make(map[string]func(string) bool),
	}
}

// run publishes and consumes at random. crash loses one of the consumers' transports for
// good in the middle.
func (m *model) run(t *testing.T, b backend, seed uint64, doomed *tsql.Transport, crash func()) {
	t.Helper()
	tr := testsql.NewTransport(t, b.DB, b.cfg)
	execute(t, b, "create table "+b.table("business")+" (n integer)")
	var consuming, publishing sync.WaitGroup
	consumersLive, stop := context.WithCancel(context.Background())
	defer consuming.Wait()
	defer stop()
	patterns := map[string]string{"exact": "t.0", "words": "t.*", "all": "#", "created late": "t.1"}
	start := func(name string, transportsOf ...*tsql.Transport) {
		for i, on := range transportsOf {
			ch := subscribe(consumersLive, t, on, name, 1+i*10, patterns[name])
			if i == 0 {
				m.subscribed(name, func(topic string) bool { return transports.Match(patterns[name], topic) })
			}
			consuming.Go(func() { m.consume(name, ch, seed+uint64(i)) })
		}
	}
	second := testsql.NewTransport(t, b.DB, b.cfg)
	if doomed == nil {
		doomed = testsql.NewTransport(t, b.DB, b.cfg)
	}
	for _, name := range []string{"exact", "words", "all"} {
		start(name, tr, second, doomed)
	}
	const publishers, rounds = 6, 60
	errs := make(chan error, publishers)
	halfway := make(chan struct{})
	for i := range publishers {
		publishing.Go(func() {
			name := fmt.Sprintf("p%d", i)
			err := m.publishing(t.Context(), b, tr, name, seed+uint64(i), rounds/2)
			if i == 0 {
				close(halfway)
			}
			if err == nil {
				err = m.publishing(t.Context(), b, tr, name+"b", seed+100+uint64(i), rounds/2)
			}
			errs <- err
		})
	}
	<-halfway
	start("created late", second)
	if crash != nil {
		crash()
	}
	publishing.Wait()
	for range publishers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	end := time.After(deadline)
	for len(m.faults(false)) > 0 {
		select {
		case <-end:
			t.Fatalf("seed %d: after %s: %.2000q", seed, deadline, m.faults(false))
		case <-time.After(20 * time.Millisecond):
		}
	}
	<-time.After(quiet) // for what comes twice
	if faults := m.faults(crash == nil); len(faults) > 0 {
		t.Fatalf("seed %d: %.2000q", seed, faults)
	}
	eventually(t, b.DB, 0, "select count(*) from "+b.table("claims"))
}

// Without a crash every committed event is handled exactly once.
func TestModelExactlyOnce(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newModel().run(t, open(t), rand.Uint64(), nil, nil)
		})
	}
}

// With one, at least once: a process is cut off from the database and never comes back.
func TestModelAtLeastOnceAfterACrash(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			b.cfg.Lease = time.Second
			doomed, cut := cuttable(t, b)
			newModel().run(t, b, rand.Uint64(), doomed, cut)
		})
	}
}

// cuttable returns a transport that can be cut off from the database for good.
func cuttable(t *testing.T, b backend) (tr *tsql.Transport, cut func()) {
	t.Helper()
	if b.cfg.Dialect == tsql.SQLite {
		t.Skip("the database is in the process; TestKilledConsumer kills one")
	}
	u, err := url.Parse(b.url(t, "lease", b.cfg.Lease.String()))
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, u.Host)
	u.Host = p.addr()
	opened, err := transports.Open(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	return opened.(*tsql.Transport), func() { p.setCut(true) }
}

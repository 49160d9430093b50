package faults_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

// begin makes the subscription of the service and publishes the events from 1 to n to
// it. Those that the ledger is not told of are except.
func (o orders) begin(t *testing.T, tr transports.Transport, l *ledger, n, except int) {
	t.Helper()
	ctx := withPatience(t)
	declare(t, tr, transports.Subscription{Name: subscription, Topics: []string{counted{}.EventType()}, Concurrency: 1})
	b, err := bus.New(tr, bus.Config{Source: "faults-publisher"})
	if err != nil {
		t.Fatal(err)
	}
	batch := make([]any, n)
	ids := make([]string, 0, n)
	for i := range batch {
		batch[i] = counted{N: i + 1}
		if i+1 != except {
			ids = append(ids, strconv.Itoa(i+1))
		}
	}
	l.published(b.PublishAll(ctx, batch...), ids...)
}

// drain runs a service until everything was handled, and stops it.
func (o orders) drain(t *testing.T, l *ledger) {
	t.Helper()
	s := startService(t, o)
	if !s.follow(t, l, func(line) bool { return l.settled() }) {
		t.Errorf("the service ended by itself: %v", s.err)
	}
	s.terminate(t, l)
	l.reconcile(withPatience(t), t)
}

// A service that is killed in the midst of its work, six times, loses nothing of it.
func TestServiceKilled(t *testing.T) {
	t.Parallel()
	random := newRand(t)
	b := testserver.StartRabbitMQ(t)
	tr := open(t, b.URL())
	l := newLedger()
	o := orders{URL: b.URL(), Concurrency: 16, Work: 5 * time.Millisecond}
	o.begin(t, tr, l, 2000, 0)
	for range 6 {
		s := startService(t, o)
		begun, last := 0, 1+random.IntN(250)
		s.follow(t, l, func(said line) bool {
			if said.word == "begin" {
				begun++
			}
			return begun == last
		})
		if err := s.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := s.finish(t, l); err == nil {
			t.Error("the service ended well in spite of being killed")
		}
	}
	o.drain(t, l)
	t.Logf("%s, handled again %d", l, l.repeated())
	wantNonePoisoned(t, tr, subscription)
}

// An event that kills each process that handles it ends in the poison queue, with a
// reason. The events that were there beside it are handled, and none of them takes the
// blame.
func TestKillerIsPoisoned(t *testing.T) {
	t.Parallel()
	b := testserver.StartRabbitMQ(t)
	tr := open(t, b.URL())
	l := newLedger()
	const killer = 50
	// Long enough for the innocents in flight not to be done when the killer strikes.
	o := orders{URL: b.URL(), Concurrency: 16, Work: 50 * time.Millisecond, Killer: killer}
	o.begin(t, tr, l, 100, killer)

	// The broker's own limit is 100 deliveries or more; nothing may need more deaths.
	const most = 120
	deaths := 0
	s := startService(t, o)
	look := time.NewTicker(250 * time.Millisecond)
	defer look.Stop()
	for ctx := withPatience(t); ; {
		select {
		case said, ok := <-s.lines:
			switch {
			case ok && said.word == "end":
				l.handles(strconv.Itoa(said.n))
			case !ok:
				if deaths++; deaths > most {
					t.Fatalf("%d services died, and event %d is not poisoned: %s", deaths, killer, l)
				}
				s = startService(t, o)
			}
			continue
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("after %d deaths: %s", deaths, l)
		}
		if l.settled() && len(poisoned(t, tr, subscription)) > 0 {
			break
		}
	}
	s.terminate(t, l)
	t.Logf("%d services died", deaths)
	l.reconcile(withPatience(t), t)
	all := poisoned(t, tr, subscription)
	if len(all) != 1 || string(all[0].Message.Payload) != `{"n":50}` || all[0].Reason == "" {
		t.Errorf("%d events are poisoned", len(all))
		for _, p := range all {
			t.Errorf("poisoned: %s with the reason %q; want event %d alone", p.Message.Payload, p.Reason, killer)
		}
	}
}

// A deploy in the midst of work repeats nothing and poisons nothing, however many there
// are in a row.
func TestDeploys(t *testing.T) {
	t.Parallel()
	random := newRand(t)
	b := testserver.StartRabbitMQ(t)
	tr := open(t, b.URL())
	l := newLedger()
	o := orders{URL: b.URL(), Concurrency: 8, Work: 20 * time.Millisecond}
	o.begin(t, tr, l, 500, 0)
	for range 4 {
		s := startService(t, o)
		done, last := 0, 10+random.IntN(50)
		s.follow(t, l, func(said line) bool {
			if said.word == "end" {
				done++
			}
			return done == last
		})
		s.terminate(t, l)
	}
	o.drain(t, l)
	if n := l.repeated(); n > 0 {
		t.Errorf("%d events were handled more than once", n)
	}
	wantNonePoisoned(t, tr, subscription)
}

// Handlers that take longer than a deploy waits are cut short. Their events come back
// as often as that happens, and it is not the fault of the events.
func TestDeploysThatCutHandlersShort(t *testing.T) {
	t.Parallel()
	b := testserver.StartRabbitMQ(t)
	tr := open(t, b.URL())
	l := newLedger()
	o := orders{URL: b.URL(), Concurrency: 8, Work: time.Hour, ShutdownTimeout: 50 * time.Millisecond}
	o.begin(t, tr, l, 100, 0)
	for range 4 {
		s := startService(t, o)
		// Not more than the first one: what was often in flight may run alone.
		s.follow(t, l, func(said line) bool { return said.word == "begin" })
		s.terminate(t, l)
	}
	o.Work, o.ShutdownTimeout = 0, time.Minute
	o.drain(t, l)
	wantNonePoisoned(t, tr, subscription)
}

// declare makes a subscription that nobody consumes.
func declare(t *testing.T, tr transports.Transport, s transports.Subscription) {
	t.Helper()
	ctx, cancel := context.WithCancel(withPatience(t))
	defer cancel()
	ch, err := tr.Subscribe(ctx, s)
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	cancel()
	for msg := range ch {
		msg.Nack()
	}
}

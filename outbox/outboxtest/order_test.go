package outboxtest

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports"
)

// Two relays, of which the active one is killed again and again, and a broker that dies:
// everything arrives, and the events of a key in their order, copies aside.
func TestOrderThroughKilledRelaysAndABrokerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a broker")
	}
	t.Parallel()
	db := newPostgres(t)
	broker := testserver.StartRabbitMQ(t)
	ob := newOutbox(t, db)
	tr, err := transports.Open(t.Context(), broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}()
	sub := transports.Subscription{Name: "order", Topics: []string{"order.created"}, Concurrency: 500, Ordered: true}
	declared, declare := context.WithCancel(t.Context())
	in, err := tr.Subscribe(declared, sub)
	if err != nil {
		t.Fatal(err)
	}
	declare() // nobody consumes before the end: what a broker delivers again is another matter
	for range in {
	}
	s := &shop{db: db, broker: broker}
	s.add(t, "relay", 0)
	s.add(t, "relay", 0)
	defer func() {
		for _, c := range s.children {
			c.end(t, syscall.SIGKILL)
		}
	}()

	const keys, each, rounds = 20, 25, 8
	next := make([]int, keys) // by key: the event that is to come
	copies, longest := 0, time.Duration(0)
	total := 0
	for round := range rounds {
		for i := range each {
			var batch []any
			for k := range keys {
				batch = append(batch, outbox.With(ordered{N: round*each + i, Key: fmt.Sprint(k)}))
			}
			commit(t, ob, batch...)
			if i == each/2 { // in the midst of it
				if round == rounds/2 {
					broker.Kill()
					broker.Start()
					continue
				}
				for _, c := range s.children[round%2:] { // both, or the one that may stand by
					c.end(t, syscall.SIGKILL)
					c.start(t)
				}
			}
		}
		began := time.Now()
		until(t, "all is sent", func() bool {
			stats, err := ob.Stats(t.Context())
			return err == nil && len(stats) == 1 && stats[0].Waiting == 0
		})
		longest = max(longest, time.Since(began))
	}
	ctx, cancel := context.WithCancel(t.Context())
	in, err = tr.Subscribe(ctx, sub)
	if err != nil {
		t.Fatal(err)
	}
	for total < rounds*each*keys {
		select {
		case msg := <-in:
			var k, n int
			if _, err := fmt.Sscanf(string(msg.Payload), `{"n":%d,"key":"%d"}`, &n, &k); err != nil {
				t.Fatalf("%s: %v", msg.Payload, err)
			}
			switch {
			case n == next[k]:
				next[k]++
				total++
			case n < next[k]:
				copies++
			default:
				t.Fatalf("key %d: %d arrives before %d", k, n, next[k])
			}
			msg.Ack()
		case <-time.After(deadline):
			t.Fatalf("%d events have arrived", total)
		}
	}
	cancel()
	for msg := range in { // copies
		msg.Ack()
	}
	t.Logf("%d events, %d copies; the longest wait was %s", total, copies, longest)
}

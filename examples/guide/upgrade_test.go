package guide

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/rabbitmq"
)

type orderHandler = func(context.Context, events.OrderCreated) error

// region cutover

// subscribeBoth moves a subscription to a new queue. Both queues get every event, and its
// time says in which of them it is handled: the time is part of the event, so all replicas
// and both queues agree.
func subscribeBoth(b *bus.Bus, cutover time.Time, handle orderHandler) {
	when := func(mine func(time.Time) bool) orderHandler {
		return func(ctx context.Context, e events.OrderCreated) error {
			if md, _ := events.MetadataFrom(ctx); !mine(md.Time) {
				return nil // the other queue has it too
			}
			return handle(ctx, e)
		}
	}
	bus.Subscribe(b, "projection", when(func(t time.Time) bool { return t.Before(cutover) }))
	bus.Subscribe(b, "projection-2", when(func(t time.Time) bool { return !t.Before(cutover) }), bus.Ordered())
}

// endregion

// region remove

// remove deletes a queue that no process uses any more, with what is left in it, poisoned
// events included.
func remove(ctx context.Context, transport transports.Transport, name string) error {
	remover, ok := transport.(transports.SubscriptionRemover)
	if !ok {
		return transports.ErrUnsupported
	}
	return remover.RemoveSubscription(ctx, name) // "shop.projection"
}

// endregion

// A subscription in use moves to an ordered queue: first the version that was there, with
// events waiting; then the one with both; then the one with the new queue only.
func TestMoveToANewQueue(t *testing.T) {
	t.Parallel()
	url, service := testserver.RabbitMQ(t), unique("guide")
	open := func() transports.Transport {
		tr, err := transports.Open(t.Context(), url)
		must(t, err)
		return tr
	}
	var mu sync.Mutex
	handled := map[int64]int{}
	seen := make(chan int64, 1000)
	count := func(_ context.Context, e events.OrderCreated) error {
		mu.Lock()
		defer mu.Unlock()
		handled[e.OrderID]++
		seen <- e.OrderID
		return nil
	}
	newBus := func(tr transports.Transport) *bus.Bus {
		b, err := bus.New(tr, bus.Config{Source: service})
		must(t, err)
		return b
	}
	publisher := open()
	defer mustClose(t, publisher)
	p := newBus(publisher)
	cutover := time.Now().Add(time.Hour)
	id := int64(0)
	publish := func(n int, at time.Time) {
		for range n {
			id++
			must(t, p.Publish(t.Context(), newOrder(id), bus.WithTime(at)))
		}
	}
	defer func() {
		for _, name := range []string{".projection", ".projection-2"} {
			must(t, remove(context.Background(), publisher, service+name))
		}
	}()

	// The version that was there, and what waits in its queue when it is stopped.
	first := open()
	defer mustClose(t, first) // when the test fails
	old := newBus(first)
	bus.Subscribe(old, "projection", count)
	must(t, old.Start(t.Context()))
	publish(20, cutover.Add(-time.Minute))
	must(t, old.Shutdown(t.Context()))
	publish(20, cutover.Add(-time.Minute))

	// The same queue can't become ordered, and the error says so.
	wrong := newBus(first)
	bus.Subscribe(wrong, "projection", count, bus.Ordered())
	// region refused
	var refused *rabbitmq.TopologyError
	if err := wrong.Start(t.Context()); !errors.As(err, &refused) {
		t.Errorf("Start: %v, want a *rabbitmq.TopologyError", err)
	}
	// endregion
	mustClose(t, first)

	second := open()
	defer mustClose(t, second) // when the test fails
	both := newBus(second)
	subscribeBoth(both, cutover, count)
	must(t, both.Start(t.Context()))
	for range 10 {
		publish(5, cutover.Add(-time.Second))
		publish(5, cutover)
	}
	for range id {
		receive(t, seen)
	}
	must(t, both.Shutdown(t.Context()))
	mustClose(t, second)
	must(t, remove(t.Context(), publisher, service+".projection"))

	third := open()
	defer mustClose(t, third)
	last := newBus(third)
	bus.Subscribe(last, "projection-2", count, bus.Ordered())
	must(t, last.Start(t.Context()))
	publish(10, cutover.Add(time.Minute))
	for range 10 {
		receive(t, seen)
	}
	must(t, last.Shutdown(t.Context()))

	mu.Lock()
	defer mu.Unlock()
	for i := int64(1); i <= id; i++ {
		if handled[i] != 1 {
			t.Errorf("order %d was handled %d times, want once", i, handled[i])
		}
	}
	if len(seen) > 0 {
		t.Error(fmt.Sprint(len(seen)) + " events more were handled")
	}
}

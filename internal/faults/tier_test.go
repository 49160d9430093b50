package faults_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

type placed struct {
	N int `json:"n"`
}

func (placed) EventType() string { return "order.placed" }

// RabbitMQ 3.10 leaves a quorum queue without a leader when it is killed within a second
// of making it: the queue is there and confirms nothing. Where that is a delay tier, what
// fails can't be put off, and must be handled again all the same.
func TestDelayTierWithoutALeader(t *testing.T) {
	t.Parallel()
	b := testserver.StartRabbitMQ(t)
	tr := open(t, b.URL())
	shop, err := bus.New(tr, bus.Config{Source: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	var tries atomic.Int32
	handled := make(chan struct{})
	bus.Subscribe(shop, "ship", func(context.Context, placed) error {
		if tries.Add(1) == 1 {
			return errors.New("the first time it fails")
		}
		close(handled)
		return nil
	}, bus.Retry(bus.RetryPolicy{Attempts: 1}))
	if err := shop.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := shop.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	stopFirstTier(t, b)
	if err := shop.Publish(t.Context(), placed{N: 1}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-handled:
	case <-withPatience(t).Done():
		t.Fatalf("handled %d times", tries.Load())
	}
	wantNonePoisoned(t, tr, "shop.ship")
}

// The same for a message that its receiver gives back so often that it is sent anew.
func TestDelayTierWithoutALeaderAndManyNacks(t *testing.T) {
	t.Parallel()
	b := testserver.StartRabbitMQ(t)
	tr := open(t, b.URL())
	in, err := tr.Subscribe(t.Context(), transports.Subscription{Name: "audit", Topics: []string{"order.placed"}, Concurrency: 1})
	if err != nil {
		t.Fatal(err)
	}
	stopFirstTier(t, b)
	publisher, err := bus.New(tr, bus.Config{Source: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if err := publisher.Publish(t.Context(), placed{N: 1}); err != nil {
		t.Fatal(err)
	}
	const nacks = 12 // the tenth is a copy
	for n := range nacks {
		select {
		case msg := <-in:
			msg.Nack()
		case <-withPatience(t).Done():
			t.Fatalf("it came %d times", n)
		}
	}
	msg := <-in
	msg.Ack()
}

// stopFirstTier takes its leader from the tier of one second, which is there before
// anything has failed.
func stopFirstTier(t *testing.T, b *testserver.Broker) {
	t.Helper()
	stop := `ra:stop_server(quorum_queues, {list_to_atom("%2F_tidings.delay.00"), node()}).`
	if said := strings.TrimSpace(b.Ctl("eval", stop)); said != "ok" {
		t.Fatalf("the tier is not stopped: %s", said)
	}
}

package sql

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
)

// region takeover

// OrderPlaced is what a plain Watermill service publishes, as JSON.
type OrderPlaced struct {
	Order int `json:"order"`
}

// takeOver goes on where the consumer group "mail" of a plain Watermill service has stopped.
func takeOver(transport transports.Transport, topic string, handle func(context.Context, OrderPlaced) error) (*bus.Bus, error) {
	b, err := bus.New(transport, bus.Config{Source: "shop"})
	if err != nil {
		return nil, err
	}
	bus.Register[OrderPlaced](b, topic) // the event type is the topic, whatever its name
	bus.Subscribe(b, "mail", handle, bus.Retry(bus.RetryPolicy{Redeliveries: []time.Duration{}}))
	return b, nil
}

// endregion

// The bus goes on where a plain service's group has stopped.
func TestTakeOverByURL(t *testing.T) {
	t.Parallel()
	sp := newSpace(t, servers["postgres"])
	topic := sp.topic("orders")
	publisher, old := sp.plain(t, "mail")
	messages, err := old.Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	send := func(id, payload string) {
		t.Helper()
		if err := publisher.Publish(topic, message.NewMessage(id, []byte(payload))); err != nil {
			t.Fatal(err)
		}
	}
	send("1", `{"order":1}`)
	receive(t, messages, "1").Ack()
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	send("2", `{"order":2}`)
	if err := publisher.Close(); err != nil {
		t.Fatal(err)
	}

	u := *sp.url
	q := u.Query()
	q.Set("trim_prefix", "shop.")
	u.RawQuery = q.Encode()
	transport, err := transports.Open(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	}()
	handled := make(chan int, 2)
	b, err := takeOver(transport, topic, func(_ context.Context, e OrderPlaced) error {
		handled <- e.Order
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for got := 0; got != 2; { // 1 may come again: watermill-sql commits what was acknowledged a moment later
		select {
		case got = <-handled:
		case <-time.After(patience):
			t.Fatal("what was published after the plain service stopped does not come")
		}
	}
	if err := b.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

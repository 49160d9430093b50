package amqp

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
)

// region takeover

// OrderPlaced is what a plain Watermill service publishes, as JSON.
type OrderPlaced struct {
	Order int `json:"order"`
}

// takeOver goes on with a queue that a plain Watermill service has consumed until now, with
// NewDurablePubSubConfig(url, GenerateQueueNameTopicNameWithSuffix("mail")).
func takeOver(transport transports.Transport, topic string, handle func(context.Context, OrderPlaced) error) (*bus.Bus, error) {
	b, err := bus.New(transport, bus.Config{Source: "shop"})
	if err != nil {
		return nil, err
	}
	bus.Register[OrderPlaced](b, topic) // the event type is the topic, whatever its name
	// Without a native transport each retry holds up the queue: none that is long.
	bus.Subscribe(b, "mail", handle, bus.Retry(bus.RetryPolicy{Redeliveries: []time.Duration{}}))
	return b, nil
}

// endregion

// The queue that a plain service had is the bus's, with what waits in it.
func TestTakeOverByURL(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	topic := ns.note(ns.exchanges, ns.prefix+"orders")
	ns.note(ns.queues, topic+"_mail")
	cfg := wmamqp.NewDurablePubSubConfig(ns.uri, wmamqp.GenerateQueueNameTopicNameWithSuffix("mail"))
	old, err := wmamqp.NewSubscriber(cfg, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	publisher, err := wmamqp.NewPublisher(cfg, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := publisher.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := old.SubscribeInitialize(topic); err != nil {
		t.Fatal(err)
	}
	if err := publisher.Publish(topic, message.NewMessage("1", []byte(`{"order":1}`))); err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}

	u, err := url.Parse(ns.uri)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme, u.RawQuery = "watermill+amqp", "trim_prefix=shop."
	transport, err := transports.Open(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	}()
	handled := make(chan int, 1)
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
	select {
	case order := <-handled:
		if order != 1 {
			t.Errorf("handled order %d, want 1", order)
		}
	case <-time.After(patience):
		t.Error("what waited for the plain service does not come")
	}
	if err := b.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

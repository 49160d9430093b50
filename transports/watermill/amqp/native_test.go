package amqp_test

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/rabbitmq"
)

// plain returns Watermill's own configuration for a topic exchange, as a service has it
// that knows nothing of this library.
func plain(url, exchange, queue, topic string) wamqp.Config {
	cfg := wamqp.NewDurablePubSubConfig(url, func(string) string { return queue })
	cfg.Exchange.GenerateName = func(string) string { return exchange }
	cfg.Exchange.Type = "topic"
	cfg.Publish.GenerateRoutingKey = func(topic string) string { return topic }
	cfg.QueueBind.GenerateRoutingKey = func(string) string { return topic } // it is given the queue's name
	return cfg
}

// A service on plain Watermill and one on transports/rabbitmq share an exchange: each
// reads what the other publishes.
func TestNativeTransportAndPlainWatermill(t *testing.T) {
	t.Parallel()
	url := testserver.RabbitMQ(t)
	id := "interop-" + uuid.NewString()[:13]
	ctx := context.WithoutCancel(t.Context())
	native, err := rabbitmq.Open(ctx, rabbitmq.Config{URLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := native.RemoveSubscription(ctx, id+".native"); err != nil {
			t.Error(err)
		}
		if err := native.RemoveSubscription(ctx, id+".plain"); err != nil { // it is a queue all the same
			t.Error(err)
		}
		if err := native.Close(); err != nil {
			t.Error(err)
		}
	})
	nativeMessages, err := native.Subscribe(t.Context(), transports.Subscription{Name: id + ".native", Topics: []string{id + ".*"}, Concurrency: 1})
	if err != nil {
		t.Fatal(err)
	}
	topic := id + ".created" // the exchange is the default one, which other tests use too
	cfg := plain(url, "events", id+".plain", topic)
	publisher, err := wamqp.NewPublisher(cfg, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	subscriber, err := wamqp.NewSubscriber(cfg, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := publisher.Close(); err != nil {
			t.Error(err)
		}
		if err := subscriber.Close(); err != nil {
			t.Error(err)
		}
	})
	plainMessages, err := subscriber.Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}

	theirs := message.NewMessage("theirs", []byte("their payload"))
	theirs.Metadata["correlation_id"] = "c"
	theirs.Metadata["their"] = "own"
	if err := publisher.Publish(topic, theirs); err != nil {
		t.Fatal(err)
	}
	got := next(t, nativeMessages)
	want := message.Metadata{"correlation_id": "c", "ce_correlationid": "c", "their": "own", transports.HeaderTopic: topic}
	if diff := cmp.Diff(want, got.Metadata); diff != "" || got.UUID != "theirs" || string(got.Payload) != "their payload" {
		t.Errorf("from plain Watermill: %q with %q, metadata (-want +got):\n%s", got.UUID, got.Payload, diff)
	}
	next(t, plainMessages) // its own

	ours := message.NewMessage("ours", []byte("our payload"))
	ours.Metadata["ce_source"], ours.Metadata["ce_type"], ours.Metadata["our"] = "shop", "order.created", "own"
	if err := native.Publish(topic, ours); err != nil {
		t.Fatal(err)
	}
	read := next(t, plainMessages)
	want = message.Metadata{
		"cloudEvents_id": "ours", "cloudEvents_source": "shop", "cloudEvents_type": "order.created", "cloudEvents_specversion": "1.0", "our": "own",
	}
	if diff := cmp.Diff(want, read.Metadata); diff != "" || read.UUID != "ours" || string(read.Payload) != "our payload" {
		t.Errorf("by plain Watermill: %q with %q, metadata (-want +got):\n%s", read.UUID, read.Payload, diff)
	}
}

func next(t *testing.T, ch <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-ch:
		if !ok {
			t.Fatal("the channel is closed")
		}
		msg.Ack()
		return msg
	case <-time.After(20 * time.Second):
		t.Fatal("no message after 20 s")
		return nil
	}
}

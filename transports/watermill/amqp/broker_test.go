package amqp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

const patience = 2 * time.Minute

func receive(t *testing.T, ch <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-ch:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return msg
	case <-time.After(patience):
		t.Fatal("no message comes")
		return nil
	}
}

func subscribe(t *testing.T, tr transports.Transport, s transports.Subscription) <-chan *message.Message {
	t.Helper()
	ch, err := tr.Subscribe(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// A service of plain Watermill on watermill-amqp's stock settings, as teams have it, and
// one of this library on the same exchanges and queues: each handles what the other
// publishes, and two of them share a queue while the one takes over from the other.
func TestBesidePlainWatermill(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	orders, reserved := ns.prefix+"order.created", ns.prefix+"stock.reserved"

	// The plain service: publishes orders, and handles reservations.
	settings := func(group string) wmamqp.Config {
		return ns.recorded(func(transports.Subscription) wmamqp.Config {
			return wmamqp.NewDurablePubSubConfig(ns.uri, wmamqp.GenerateQueueNameTopicNameWithSuffix(group))
		})(transports.Subscription{})
	}
	publisher, err := wmamqp.NewPublisher(settings(""), watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	subscriber, err := wmamqp.NewSubscriber(settings("plain"), watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	confirmed := make(chan *message.Message, 10)
	router.AddConsumerHandler("confirm", reserved, subscriber, func(msg *message.Message) error {
		confirmed <- msg
		return nil
	})
	ended := make(chan error, 1)
	go func() { ended <- router.Run(context.Background()) }()
	<-router.Running()
	defer func() {
		if err := errors.Join(router.Close(), publisher.Close(), <-ended); err != nil {
			t.Error(err)
		}
	}()

	// A plain worker that has been here before, whose queue the bus takes over.
	old, err := wmamqp.NewSubscriber(settings("reserve"), watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	if err := old.SubscribeInitialize(orders); err != nil {
		t.Fatal(err)
	}
	publish := func(id string) {
		t.Helper()
		msg := message.NewMessage(id, []byte(`{"order":`+id+`}`))
		middleware.SetCorrelationID("checkout-"+id, msg)
		if err := publisher.Publish(orders, msg); err != nil {
			t.Fatal(err)
		}
	}
	publish("1") // waits in the old worker's queue
	oldCtx, stopOld := context.WithCancel(t.Context())
	defer stopOld()
	oldMessages, err := old.Subscribe(oldCtx, orders)
	if err != nil {
		t.Fatal(err)
	}
	held := receive(t, oldMessages)

	takesOver := func(s transports.Subscription) wmamqp.Config {
		s.Name = strings.TrimPrefix(s.Name, "shop.")
		return DurablePubSub(ns.uri)(s)
	}
	b, err := bus.New(ns.open(t, Config{AMQP: takesOver}), bus.Config{Source: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	type reservation struct{ id, correlation, data string }
	handled := make(chan reservation, 10)
	bus.SubscribeRaw(b, "reserve", []string{orders}, func(ctx context.Context, raw bus.Raw) error {
		handled <- reservation{raw.Metadata.ID, raw.Metadata.CorrelationID, string(raw.Data)}
		return b.PublishRaw(ctx, bus.Raw{
			Metadata: events.Metadata{Type: reserved, ID: "reserved-" + raw.Metadata.ID, CorrelationID: raw.Metadata.CorrelationID},
			Data:     raw.Data,
		})
	})
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := func(id string) {
		t.Helper()
		select {
		case got := <-handled:
			if want := (reservation{id, "checkout-" + id, `{"order":` + id + `}`}); got != want {
				t.Errorf("the bus handles %+v; want %+v", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("the bus does not handle %s", id)
		}
		msg := receive(t, confirmed)
		if msg.UUID != "reserved-"+id || middleware.MessageCorrelationID(msg) != "checkout-"+id || msg.Metadata["ce_source"] != "shop" {
			t.Errorf("the plain service handles %q with %v", msg.UUID, msg.Metadata)
		}
	}
	publish("2")
	want("2") // beside the old worker, which holds 1
	held.Nack()
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	want("1")
	if err := b.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConsumersMakeConcurrency(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	tr := ns.open(t, Config{AMQP: DurablePubSub(ns.uri), MaxConsumers: 4})
	topic := ns.prefix + "a"
	ch := subscribe(t, tr, transports.Subscription{Name: "s", Topics: []string{topic}, Concurrency: 10})
	for i := range 6 {
		if err := tr.Publish(topic, message.NewMessage(fmt.Sprint(i), nil)); err != nil {
			t.Fatal(err)
		}
	}
	var held []*message.Message
	for range 4 {
		held = append(held, receive(t, ch))
	}
	select {
	case msg := <-ch:
		t.Errorf("%s comes while four consumers have one each", msg.UUID)
	case <-time.After(100 * time.Millisecond):
	}
	for _, msg := range held {
		msg.Ack()
	}
	for range 2 {
		receive(t, ch).Ack()
	}
}

func TestQueueIsOfOneSubscription(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	tr := ns.open(t, Config{AMQP: NonDurableQueue(ns.uri)})
	topic := ns.prefix + "a"
	one := transports.Subscription{Name: "one", Topics: []string{topic}, Concurrency: 1}
	subscribe(t, tr, one)
	_, err := tr.Subscribe(t.Context(), transports.Subscription{Name: "two", Topics: []string{topic}, Concurrency: 1})
	if !errors.Is(err, transports.ErrUnsupported) {
		t.Errorf("a second subscription of the queue: %v; want ErrUnsupported", err)
	}
	subscribe(t, tr, one) // a second consumer is welcome
}

// What others put on the queue, watermill-amqp's marshaler would refuse and its
// subscriber requeue without end.
func TestForeignHeadersAreRead(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	tr := ns.open(t, Config{AMQP: DurablePubSub(ns.uri)})
	topic := ns.prefix + "a"
	ch := subscribe(t, tr, transports.Subscription{Name: "s", Topics: []string{topic}, Concurrency: 1})
	when := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	ns.onChannel(t, func(channel *amqp091.Channel) {
		err := channel.PublishWithContext(t.Context(), topic, "", false, false, amqp091.Publishing{
			MessageId: "foreign-1", ContentType: "text/plain", CorrelationId: "c", Body: []byte("hello"),
			Headers: amqp091.Table{
				"text": "a", "bytes": []byte("b"), "int": int32(7), "long": int64(-8), "double": 1.5, "float": float32(0.1), "bool": true,
				"time": when, "nothing": nil, "table": amqp091.Table{"k": "v"}, "list": []any{"x", int32(1)},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	msg := receive(t, ch)
	msg.Ack()
	want := message.Metadata{
		"text": "a", "bytes": "b", "int": "7", "long": "-8", "double": "1.5", "float": "0.1", "bool": "true",
		"time": "2026-02-03T04:05:06Z", "nothing": "", "table": `{"k":"v"}`, "list": `["x",1]`,
		"content-type": "text/plain", "correlation_id": "c", "ce_correlationid": "c", "tidings_topic": topic,
	}
	if msg.UUID != "foreign-1" || string(msg.Payload) != "hello" || !maps.Equal(msg.Metadata, want) {
		t.Errorf("received %q with %q, metadata\n%v; want\n%v", msg.UUID, msg.Payload, msg.Metadata, want)
	}
}

// A header that the client can't read does not end the connection of all subscriptions.
func TestHeaderThatTheClientCannotRead(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	tr := ns.open(t, Config{AMQP: DurablePubSub(ns.uri)})
	topic := ns.prefix + "a"
	ch := subscribe(t, tr, transports.Subscription{Name: "s", Topics: []string{topic}, Concurrency: 1})
	ns.onChannel(t, func(channel *amqp091.Channel) {
		err := channel.PublishWithContext(t.Context(), topic, "", false, false, amqp091.Publishing{
			MessageId: "1", Headers: amqp091.Table{"list": make([]any, 9000)},
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	msg := receive(t, ch)
	msg.Ack()
	if want := "[" + strings.Repeat("null,", 8999) + "null]"; msg.UUID != "1" || msg.Metadata["list"] != want {
		t.Errorf("received %q with %.50q", msg.UUID, msg.Metadata["list"])
	}
}

func TestHeaderGoesBeforeProperty(t *testing.T) {
	t.Parallel()
	msg, err := marshaler{wmamqp.DefaultMarshaler{MessageUUIDHeaderKey: "id"}}.Unmarshal(amqp091.Delivery{
		MessageId: "property", ContentType: "property", CorrelationId: "property",
		Headers: amqp091.Table{"id": "header", "content-type": "header", "correlation_id": ""},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (message.Metadata{"content-type": "header", "correlation_id": "", "amqp-message-id": "property"}); msg.UUID != "header" || !maps.Equal(msg.Metadata, want) {
		t.Errorf("got %q, %v", msg.UUID, msg.Metadata)
	}
}

func TestPropertiesAreMetadata(t *testing.T) {
	t.Parallel()
	m := marshaler{}
	msg, err := m.Unmarshal(amqp091.Delivery{
		MessageId: "1", ContentEncoding: "gzip", ReplyTo: "q", Priority: 3, Expiration: "60000", UserId: "guest", Type: "t", AppId: "a",
		Timestamp: time.Unix(1_700_000_000, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := message.Metadata{
		"content-encoding": "gzip", "amqp-reply-to": "q", "amqp-priority": "3", "amqp-expiration": "60000", "amqp-user-id": "guest", "amqp-type": "t",
		"amqp-app-id": "a", "amqp-timestamp": "2023-11-14T22:13:20Z",
	}
	if msg.UUID != "1" || !maps.Equal(msg.Metadata, want) {
		t.Errorf("got %q, %v", msg.UUID, msg.Metadata)
	}
	if out, err := m.Marshal(msg); err != nil || out.ContentEncoding != "gzip" || out.Expiration != "" {
		t.Errorf("written as %+v, %v", out, err)
	}
}

// Headers that do not fit into a frame would make the broker close the connection.
func TestLargeMetadataIsRefused(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	tr := ns.open(t, Config{AMQP: DurablePubSub(ns.uri)})
	topic := ns.prefix + "a"
	ch := subscribe(t, tr, transports.Subscription{Name: "s", Topics: []string{topic}, Concurrency: 1})
	for name, md := range map[string]message.Metadata{
		"one value":   {"a": strings.Repeat("x", maxHeaderBytes)},
		"many values": {"a": strings.Repeat("x", maxHeaderBytes/2), "b": strings.Repeat("x", maxHeaderBytes/2)},
		"a key":       {strings.Repeat("k", 256): ""},
	} {
		msg := message.NewMessage("1", nil)
		msg.Metadata = md
		if err := tr.Publish(topic, msg); !errors.Is(err, transports.ErrTooLarge) {
			t.Errorf("%s: %v; want ErrTooLarge", name, err)
		}
	}
	msg := message.NewMessage("2", nil)
	msg.Metadata["a"] = strings.Repeat("x", maxHeaderBytes-100)
	msg.Metadata[strings.Repeat("k", 255)[:10]] = "v"
	if err := tr.Publish(topic, msg); err != nil {
		t.Fatal(err)
	}
	got := receive(t, ch)
	if got.UUID != "2" || got.Metadata["a"] != msg.Metadata["a"] {
		t.Errorf("received %q", got.UUID)
	}
	got.Ack()
}

// declared returns nil when there is a queue of a name, and otherwise the broker's reply.
func (ns *namespace) declared(t *testing.T, queue string) (reply *amqp091.Error) {
	t.Helper()
	ns.onChannel(t, func(ch *amqp091.Channel) {
		if _, err := ch.QueueDeclarePassive(queue, false, false, false, false, nil); err != nil {
			reply, _ = errors.AsType[*amqp091.Error](err)
		}
	})
	return reply
}

func TestEphemeralSubscriptionLeavesNoQueue(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	tr := ns.open(t, Config{AMQP: DurablePubSub(ns.uri), Ephemeral: true})
	topic := ns.prefix + "a"
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ephemeral, err := tr.Subscribe(ctx, transports.Subscription{Name: "live", Topics: []string{topic}, Concurrency: 8, Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	subscribe(t, tr, transports.Subscription{Name: "mail", Topics: []string{topic}, Concurrency: 1})
	stop()
	for range ephemeral {
	}
	// The broker deletes it when it has seen the last consumer go.
	for deadline := time.Now().Add(patience); ; {
		reply := ns.declared(t, topic+"_live")
		if reply != nil && reply.Code == amqp091.NotFound {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the queue of the ephemeral subscription is still there: %v", reply)
		}
	}
	if reply := ns.declared(t, topic+"_mail"); reply != nil {
		t.Errorf("the durable one is not: %v", reply)
	}
}

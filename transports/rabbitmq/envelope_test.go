package rabbitmq

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// A message of another service, with all that AMQP has, keeps it on every way out and back:
// retry, delay, poison queue, another transport.
func TestEnvelopeSurvives(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	foreign := amqp.Publishing{
		Headers: amqp.Table{
			"text": "t", "bytes": []byte("a\x00b"), "true": true, "byte": int8(-1), "short": int16(-2), "int": int32(3), "long": int64(1 << 40),
			"float": float32(0.5), "double": 0.25, "decimal": amqp.Decimal{Scale: 2, Value: 314}, "time": time.Unix(1_700_000_000, 0), "void": nil,
			"table": amqp.Table{"a": int32(1), "b": []any{"x", false}}, "list": []any{int64(1), amqp.Table{}}, "x-mine": "m", "CC": []any{},
			"cloudEvents_id": "7", "cloudEvents_source": "/their", "cloudEvents_time": "2026-02-03T04:05:06.7Z",
		},
		ContentType: "application/json", ContentEncoding: "gzip", DeliveryMode: amqp.Persistent, Priority: 3, CorrelationId: "c", ReplyTo: "their.replies",
		Expiration: "3600000", MessageId: "their-id", Timestamp: time.Unix(1_700_000_000, 0), Type: "their-type", UserId: "guest", AppId: "their-app",
		Body: []byte("\x1f\x8b"),
	}
	ctx, stop := contextWithStop(t)
	ch, err := b.Subscribe(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.raw.PublishWithContext(t.Context(), b.id, "a", false, false, foreign); err != nil {
		t.Fatal(err)
	}
	msg := b.receive(ch)
	original := foreignMetadata(msg)
	for key, want := range map[string]string{
		"content-encoding": "gzip", "content-type": "application/json", "amqp-reply-to": "their.replies", "amqp-priority": "3",
		"amqp-expiration": "3600000", "amqp-user-id": "guest", "amqp-message-id": "their-id", "amqp-type": "", "ce_type": "their-type", "amqp-app-id": "their-app",
		"ce_correlationid": "c", "amqp-timestamp": "2023-11-14T22:13:20Z", "x-mine": "m", "decimal": "3.14", "table": `{"a":1,"b":["x",false]}`,
	} {
		if original[key] != want {
			t.Errorf("%s is %q, want %q", key, original[key], want)
		}
	}
	same := func(way string) {
		t.Helper()
		msg.Ack()
		msg = b.receive(ch)
		if diff := cmp.Diff(original, foreignMetadata(msg)); diff != "" || msg.UUID != "7" || string(msg.Payload) != "\x1f\x8b" {
			t.Errorf("after %s, %q has %q, metadata (-before +after):\n%s", way, msg.UUID, msg.Payload, diff)
		}
	}
	for delay, way := range map[time.Duration]string{0: "a retry", time.Second: "a delay"} {
		if err := b.Requeue(t.Context(), s.Name, msg, delay); err != nil {
			t.Fatal(err)
		}
		same(way)
	}
	transports.WritePoisoned(transports.Poisoned{Message: msg, Reason: "no", LastFailure: time.Now()})
	if err := b.Poison(t.Context(), s.Name, msg); err != nil {
		t.Fatal(err)
	}
	list := b.list(s.Name)
	if diff := cmp.Diff(original, foreignMetadata(list[0].Message)); diff != "" {
		t.Errorf("metadata (-before +poisoned):\n%s", diff)
	}
	if n, err := b.RequeuePoisoned(t.Context(), s.Name, list[0].Handle); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	same("a redrive")

	bridge, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	over, err := bridge.Subscribe(ctx, transports.Subscription{Name: "bridge", Topics: []string{"a"}, Concurrency: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := bridge.Publish("a", msg); err != nil {
		t.Fatal(err)
	}
	back := b.receive(over)
	if err := b.Publish("a", back); err != nil {
		t.Fatal(err)
	}
	back.Ack()
	if err := bridge.Close(); err != nil {
		t.Fatal(err)
	}
	same("a bridge")

	// The last one, as it is at the broker.
	if err := b.Requeue(t.Context(), s.Name, msg, 0); err != nil {
		t.Fatal(err)
	}
	stop()
	msg.Ack()
	for range ch { // until it is closed
	}
	var d amqp.Delivery
	b.eventually("it is in the queue", func() bool {
		var ok bool
		if d, ok, err = b.raw.Get(b.names.queue(s.Name), true); err != nil {
			t.Fatal(err)
		}
		return ok
	})
	got := amqp.Publishing{
		ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: d.DeliveryMode, Priority: d.Priority, CorrelationId: d.CorrelationId,
		ReplyTo: d.ReplyTo, Expiration: d.Expiration, MessageId: d.MessageId, Timestamp: d.Timestamp, Type: d.Type, UserId: d.UserId, AppId: d.AppId, Body: d.Body,
	}
	want := foreign
	want.Expiration, want.UserId = "", "" // these don't go back
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(amqp.Publishing{}, "Headers")); diff != "" {
		t.Errorf("properties (-published +requeued):\n%s", diff)
	}
}

// foreignMetadata is what the library has not put there.
func foreignMetadata(msg *message.Message) message.Metadata {
	md := maps.Clone(msg.Metadata)
	maps.DeleteFunc(md, func(key, _ string) bool { return strings.HasPrefix(key, transports.HeaderPrefix) })
	return md
}

package rabbitmq

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// Headers that the client can't read are received as text, and cost nobody the connection.
func TestForeignHeadersHarmNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 10)
	ch := b.subscribe(b.Transport, s)
	other := b.sub("other", 1)
	other.Topics = []string{"b"}
	causes := interruptions(&other)
	innocent := b.subscribe(b.Transport, other)

	list, table, deep := make([]any, 9000), make(amqp.Table, 9000), any(int32(1))
	for i := range list {
		list[i] = int32(i) //nolint:gosec // up to 9000
		table[strconv.Itoa(i)] = true
	}
	for range 40 {
		deep = []any{deep}
	}
	for name, value := range map[string]any{"list": list, "table": table, "deep": deep, "within": []any{list}} {
		foreign := amqp.Publishing{MessageId: name, ContentType: "a/b", Headers: amqp.Table{"odd": value, "plain": "kept"}, Body: []byte(name)}
		if err := b.raw.PublishWithContext(t.Context(), b.id, "a", false, false, foreign); err != nil {
			t.Fatal(err)
		}
		msg := b.receive(ch)
		var got any
		if err := json.Unmarshal([]byte(msg.Metadata["odd"]), &got); err != nil || msg.UUID != name || msg.Metadata["plain"] != "kept" || string(msg.Payload) != name {
			t.Errorf("%s: received %s with %.100q: %v", name, msg.UUID, msg.Metadata, err)
		}
		msg.Nack() // and again: its count is a header as well
		b.ack(ch, name)
	}
	publishTo(t, b.Transport, "b", "1")
	b.ack(innocent, "1")
	if len(causes) > 0 {
		t.Errorf("another subscription was interrupted: %v", <-causes)
	}
}

// The broker adds headers of its own to a message, and sends it even when it is over a frame
// then.
func TestHeadersThatOutgrowTheFrame(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	ch := b.subscribe(b.Transport, s)
	room := defaultFrameSize - 64
	foreign := amqp.Publishing{MessageId: "1", Headers: amqp.Table{"large": strings.Repeat("l", room)}}
	if err := b.raw.PublishWithContext(t.Context(), b.id, "a", false, false, foreign); err != nil {
		t.Fatal(err)
	}
	b.receive(ch).Nack()
	msg := b.ack(ch, "1")
	if large := msg.Metadata["large"]; len(large) < 256 || strings.Trim(large, "l") != "" {
		t.Errorf("%d bytes are left: %.300q", len(large), large)
	}
}

func publishTo(t *testing.T, tr transports.Transport, topic, id string) {
	t.Helper()
	if err := tr.Publish(topic, newMessage(t, id)); err != nil {
		t.Fatal(err)
	}
}

package rabbitmq

import (
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

// A vhost of an earlier version has a classic discard queue, which lives on one node. A new
// process deletes it.
func TestOldDiscardQueueIsDeleted(t *testing.T) {
	t.Parallel()
	broker := testserver.StartRabbitMQ(t) // because the queue belongs to the default exchange
	conn, err := amqp.Dial(broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(oldDiscard, true, false, false, false, amqp.Table{"x-max-length": int64(0)}); err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, cfg: Config{URLs: []string{broker.URL()}}}
	b.Transport = b.open()
	b.subscribe(b.Transport, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1})
	b.eventually("the old queue is gone", func() bool {
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ch.Close() }()
		_, err = ch.QueueDeclarePassive(oldDiscard, true, false, false, false, nil)
		return isCode(err, amqp.NotFound)
	})
	if n, err := ch.QueueDeclarePassive(b.names.discard, true, false, false, false, nil); err != nil {
		t.Errorf("the new one: %+v, %v", n, err)
	}
}

// No queue that is shared, or that a durable subscription has, lives on one node.
func TestQueuesAreReplicated(t *testing.T) {
	t.Parallel()
	broker := testserver.StartRabbitMQ(t)
	b := &bench{T: t, cfg: Config{URLs: []string{broker.URL()}}}
	b.Transport = b.open()
	for _, name := range []string{"s", "removed"} {
		b.subscribe(b.Transport, transports.Subscription{Name: name, Topics: []string{"a"}, Concurrency: 1})
	}
	if err := b.RemoveSubscription(t.Context(), "removed"); err != nil {
		t.Fatal(err)
	}
	queues := strings.Fields(broker.Ctl("list_queues", "name", "type", "--no-table-headers"))
	if len(queues) != 2*(5+delayQueues) { // s, s:poison, removed:removed, tidings.unrouted, tidings.discard
		t.Errorf("queues: %v", queues)
	}
	for pair := range slices.Chunk(queues, 2) {
		if pair[1] != "quorum" {
			t.Errorf("%s is a %s queue", pair[0], pair[1])
		}
	}
}

package rabbitmq

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// patience is how long tests wait for what must happen at the broker.
const testPatience = 2 * time.Minute

// bench is a transport on an exchange of its own, with names of its own, and a client
// beside it that knows nothing of either.
type bench struct {
	*testing.T
	*Transport
	cfg  Config
	id   string
	raw  *amqp.Channel
	subs map[string]bool
}

// newBench returns a transport with a change of its configuration, on the broker that
// the tests find. What they make there is gone afterwards.
func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	b := &bench{T: t, id: "test-" + uuid.NewString()[:13], subs: make(map[string]bool)}
	b.cfg = Config{URLs: []string{brokerURL(t)}, Exchange: b.id, ConnectTimeout: time.Minute}
	if change != nil {
		change(&b.cfg)
	}
	b.raw = dialRaw(t)
	b.Transport = b.open()
	t.Cleanup(func() {
		tr := b.open()
		for name := range b.subs {
			if err := tr.RemoveSubscription(context.Background(), name); err != nil {
				t.Errorf("clean up %s: %v", name, err)
			}
		}
		removeTopology(t, b.names, slices.Collect(maps.Keys(b.subs))...)
	})
	return b
}

// removeTopology deletes what transports with these names have made, except for the queues
// of the subscriptions, which are removed already.
func removeTopology(t *testing.T, n names, removed ...string) {
	t.Helper()
	ch := dialRaw(t)
	queues, exchanges := []string{n.unrouted, n.discard}, []string{n.exchange, n.retry, n.unrouted, n.due}
	for k := range delayQueues {
		queues, exchanges = append(queues, n.delay(k)), append(exchanges, n.delay(k))
	}
	for _, name := range removed {
		queues = append(queues, n.removed(name))
	}
	for _, queue := range queues {
		if _, err := ch.QueueDelete(queue, false, false, false); err != nil {
			t.Errorf("clean up: %v", err)
		}
	}
	for _, exchange := range exchanges {
		if err := ch.ExchangeDelete(exchange, false, false); err != nil {
			t.Errorf("clean up: %v", err)
		}
	}
}

// open opens a further transport like the first.
func (b *bench) open() *Transport {
	b.Helper()
	tr := mustOpen(b.T, b.cfg)
	b.Cleanup(func() {
		if err := tr.Close(); err != nil {
			b.Errorf("close: %v", err)
		}
	})
	return tr
}

// dialRaw returns a channel of the client that the transport is made of.
func dialRaw(t *testing.T) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(brokerURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // a test may have closed it
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// sub is a subscription to the topic a, and its name.
func (b *bench) sub(name string, concurrency int) transports.Subscription {
	s := transports.Subscription{Name: b.id + "." + name, Topics: []string{"a"}, Concurrency: concurrency}
	b.subs[s.Name] = true
	return s
}

func (b *bench) subscribe(tr *Transport, s transports.Subscription) <-chan *message.Message {
	b.Helper()
	ch, err := tr.Subscribe(b.Context(), s)
	if err != nil {
		b.Fatal(err)
	}
	return ch
}

func (b *bench) publish(ids ...string) {
	b.Helper()
	for _, id := range ids {
		if err := b.Publish("a", newMessage(b.T, id)); err != nil {
			b.Fatalf("publish %s: %v", id, err)
		}
	}
}

func newMessage(t *testing.T, id string) *message.Message {
	t.Helper()
	msg := message.NewMessageWithContext(t.Context(), id, []byte(id))
	msg.Metadata["ce_source"] = "test"
	return msg
}

func (b *bench) receive(ch <-chan *message.Message) *message.Message {
	b.Helper()
	select {
	case msg, ok := <-ch:
		if !ok {
			b.Fatal("the channel is closed; want a message")
		}
		return msg
	case <-time.After(testPatience):
		b.Fatalf("no message after %v", testPatience)
		return nil
	}
}

// ack receives the message of that id and acknowledges it.
func (b *bench) ack(ch <-chan *message.Message, id string) *message.Message {
	b.Helper()
	msg := b.receive(ch)
	if msg.UUID != id {
		b.Fatalf("received %q; want %q", msg.UUID, id)
	}
	msg.Ack()
	return msg
}

// eventually waits until the broker shows what done wants to see.
func (b *bench) eventually(what string, done func() bool) {
	b.Helper()
	for deadline := time.Now().Add(testPatience); !done(); {
		if time.Now().After(deadline) {
			b.Fatalf("not after %v: %s", testPatience, what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// ready returns how many messages wait for a subscription.
func (b *bench) ready(subscription string) int {
	b.Helper()
	return b.depth(b.names.queue(subscription))
}

// depth returns how many messages wait in a queue.
func (b *bench) depth(queue string) int {
	b.Helper()
	q, err := b.raw.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		b.Fatalf("queue %s: %v", queue, err)
	}
	return q.Messages
}

// contextWithStop returns a context for a subscription, and what ends it.
func contextWithStop(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	return ctx, stop
}

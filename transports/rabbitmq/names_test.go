package rabbitmq

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/gotidings/tidings/transports"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ exchange, subscription, queue string }{
		{"events", "shop.mail", "shop.mail"},
		{"events", "a/b", "events/a/b"}, // and not the queue of b on the exchange a
		{"a", "b", "a/b"},
		{"a", "b/c", "a/b/c"},
		{"staging", "shop.mail", "staging/shop.mail"},
		{"amq.topic", "shop.mail", "/amq.topic/shop.mail"}, // RabbitMQ refuses queues that begin with amq.
	} {
		n := namesOf(c.exchange)
		if got := n.queue(c.subscription); got != c.queue {
			t.Errorf("%s on %s: queue %s; want %s", c.subscription, c.exchange, got, c.queue)
		}
		if got := n.poison(c.subscription); got != c.queue+":poison" {
			t.Errorf("%s on %s: poison queue %s", c.subscription, c.exchange, got)
		}
		for _, other := range []string{"events", "a", "staging", "amq.topic"} {
			subscription, ours := namesOf(other).subscription(c.queue)
			if ours != (other == c.exchange) || ours && subscription != c.subscription {
				t.Errorf("queue %s is taken for %q of %s: %t", c.queue, subscription, other, ours)
			}
		}
	}
	if n := namesOf("staging"); n.delay(3) != "staging/tidings.delay.03" || !n.isDelay("staging/tidings.delay.03") || n.isDelay("tidings.delay.03") {
		t.Errorf("delay queue %s", n.delay(3))
	}
}

// Environments that share a vhost, each with an exchange of its own, share nothing else:
// the same subscription in each gets all events of its exchange and no others, published,
// delayed, retried and poisoned.
func TestTwoExchangesOnOneVhost(t *testing.T) {
	t.Parallel()
	name := "shop-" + uuid.NewString()[:13]
	const n = 20
	type environment struct {
		*bench
		received <-chan *message.Message
	}
	var environments []environment
	for range 2 {
		b := newBench(t, nil)
		b.subs[name] = true
		s := transports.Subscription{Name: name, Topics: []string{"a"}, Concurrency: 1}
		environments = append(environments, environment{b, b.subscribe(b.Transport, s)})
	}
	for _, e := range environments {
		for i := range n {
			e.publish(fmt.Sprintf("%s %02d", e.id, i))
		}
		delayed := transports.Outgoing{Topic: "a", Message: newMessage(t, e.id+" delayed"), Delay: time.Second}
		if err := e.PublishBatch(t.Context(), []transports.Outgoing{delayed}); err != nil {
			t.Fatal(err)
		}
		if err := e.Requeue(t.Context(), name, newMessage(t, e.id+" retried"), time.Second); err != nil {
			t.Fatal(err)
		}
		if err := e.Poison(t.Context(), name, newMessage(t, e.id+" poisoned")); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range environments {
		for range n + 2 {
			msg := e.receive(e.received)
			if !strings.HasPrefix(msg.UUID, e.id) {
				t.Errorf("%s received %s", e.id, msg.UUID)
			}
			msg.Ack()
		}
		e.quiet(e.received)
		if list := e.list(name); len(list) != 1 || list[0].Message.UUID != e.id+" poisoned" {
			t.Errorf("%s: poisoned: %v", e.id, list)
		}
	}
}

func TestExchangeNamesThatAreRefused(t *testing.T) {
	t.Parallel()
	for exchange, want := range map[string]string{"a/b": "must not contain", strings.Repeat("x", 128): "128 bytes"} {
		_, err := Open(t.Context(), Config{URLs: []string{"amqp://localhost"}, Exchange: exchange})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s: %v; want %q", exchange, err, want)
		}
	}
}

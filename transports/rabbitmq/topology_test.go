package rabbitmq

import (
	"errors"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

func TestQueueWithOtherArgumentsIsExplained(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	if _, err := b.raw.QueueDeclare(b.names.queue(s.Name), true, false, false, false, amqp.Table{"x-queue-type": "classic"}); err != nil {
		t.Fatal(err)
	}
	_, err := b.Subscribe(t.Context(), s)
	wrong, ok := errors.AsType[*TopologyError](err)
	if !ok || wrong.Kind != "queue" || wrong.Name != b.names.queue(s.Name) {
		t.Fatalf("subscribe: %v; want a TopologyError of the queue", err)
	}
	for _, want := range []string{"exists with other properties", "under a new name", "x-queue-type=quorum", "current is"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in: %v", want, err)
		}
	}
	other := b.subscribe(b.Transport, b.sub("other", 1)) // the connection is unharmed
	b.publish("1")
	b.ack(other, "1")
}

func TestSwitchToOrderedIsExplained(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.subscribe(b.Transport, s)
	s.Ordered = true
	if _, err := b.open().Subscribe(t.Context(), s); err == nil || !strings.Contains(err.Error(), "x-single-active-consumer") {
		t.Errorf("subscribe: %v; want what differs", err)
	}
}

func TestExchangeOfAnotherTypeIsExplained(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	cfg := b.cfg
	cfg.Exchange += ".fanout"
	if err := b.raw.ExchangeDeclare(cfg.Exchange, "fanout", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.raw.ExchangeDelete(cfg.Exchange, false, false); err != nil {
			t.Error(err)
		}
	})
	_, err := Open(t.Context(), cfg)
	if wrong, ok := errors.AsType[*TopologyError](err); !ok || wrong.Kind != "exchange" || wrong.Name != cfg.Exchange {
		t.Errorf("open: %v; want a TopologyError of the exchange", err)
	}
}

func TestVerifyMakesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	cfg := b.cfg
	cfg.Topology = Verify
	verifying := mustOpen(t, cfg)
	t.Cleanup(func() { _ = verifying.Close() })
	s := b.sub("s", 1)
	_, err := verifying.Subscribe(t.Context(), s)
	if wrong, ok := errors.AsType[*TopologyError](err); !ok || wrong.Kind != "queue" || !strings.Contains(err.Error(), "does not exist") {
		t.Fatalf("subscribe: %v; want that the queue does not exist", err)
	}
	b.subscribe(b.Transport, s)
	if err := b.raw.ExchangeDeclarePassive(b.id, "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := verifying.Subscribe(t.Context(), s); err != nil {
		t.Errorf("subscribe to what is there: %v", err)
	}
	cfg.Exchange += ".missing"
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("open without the exchange: %v", err)
	}
}

func TestAssumeLooksAtNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	ch := b.subscribe(b.Transport, s)
	cfg := b.cfg
	cfg.Topology = Assume
	assuming := mustOpen(t, cfg)
	t.Cleanup(func() { _ = assuming.Close() })
	if err := assuming.Publish("a", newMessage(t, "1")); err != nil {
		t.Fatal(err)
	}
	b.ack(ch, "1")
	if _, err := assuming.Subscribe(t.Context(), b.sub("missing", 1)); err == nil {
		t.Error("a subscription without a queue is accepted")
	}
}

func TestClassicQueues(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.QueueType = Classic })
	s := b.sub("s", 3)
	ch := b.subscribe(b.Transport, s)
	b.publish("1")
	msg := b.receive(ch)
	msg.Nack()
	b.ack(ch, "1")
	b.publish("2")
	b.receive(ch).Nack()
	b.ack(ch, "2")
}

func TestNamesThatRabbitMQCantHave(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for name, want := range map[string]string{
		strings.Repeat("n", 248): "248 bytes", "s:poison": "ends in", "s:removed": "ends in", "s:lock": "ends in", "tidings.s": "begins with",
	} {
		_, err := b.Subscribe(t.Context(), transports.Subscription{Name: name, Topics: []string{"a"}, Concurrency: 1})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v; want %q", name, err, want)
		}
	}
	if err := b.Publish(strings.Repeat("t", 256), newMessage(t, "1")); !errors.Is(err, transports.ErrTooLarge) {
		t.Errorf("a topic of 256 bytes: %v", err)
	}
	long := b.sub(strings.Repeat("n", b.names.limit("s")-len(b.id)-1), 1)
	ch := b.subscribe(b.Transport, long)
	b.publish("1")
	b.ack(ch, "1")
}

func TestDeletedQueueIsMadeAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 3)
	ch := b.subscribe(b.Transport, s)
	b.publish("1")
	b.ack(ch, "1")
	if _, err := b.raw.QueueDelete(b.names.queue(s.Name), false, false, false); err != nil {
		t.Fatal(err)
	}
	b.eventually("the queue is there again, with its bindings", func() bool {
		if err := b.Publish("a", newMessage(t, "2")); err != nil {
			t.Fatal(err)
		}
		select {
		case msg := <-ch:
			return msg.Ack()
		default:
			return false
		}
	})
}

func TestDeletedExchangeIsMadeAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.publish("1")
	if err := b.raw.ExchangeDelete(b.id, false, false); err != nil {
		t.Fatal(err)
	}
	b.publish("2") // the broker closes the channel for it; it is sent again
	if err := b.raw.ExchangeDeclarePassive(b.id, "topic", true, false, false, false, nil); err != nil {
		t.Errorf("the exchange: %v", err)
	}
}

func TestNoSubscription(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	err := b.Requeue(t.Context(), b.id+".never-made", newMessage(t, "1"), time.Second)
	if !errors.Is(err, transports.ErrNoSubscription) {
		t.Errorf("delayed requeue to nobody: %v; want ErrNoSubscription", err)
	}
	err = b.Requeue(t.Context(), b.id+".never-made", newMessage(t, "1"), 0)
	if !errors.Is(err, transports.ErrNoSubscription) {
		t.Errorf("requeue to nobody: %v; want ErrNoSubscription", err)
	}
	err = b.Poison(t.Context(), b.id+".never-made", newMessage(t, "1"))
	if !errors.Is(err, transports.ErrNoSubscription) {
		t.Errorf("poison of nobody: %v; want ErrNoSubscription", err)
	}
}

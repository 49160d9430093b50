package rabbitmq

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

func TestDelayBy(t *testing.T) {
	t.Parallel()
	n := namesOf(defaultExchange)
	for _, c := range []struct {
		delay    time.Duration
		exchange string
		tiers    []int
	}{
		{time.Nanosecond, "tidings.delay.00", []int{0}},
		{time.Second, "tidings.delay.00", []int{0}},
		{time.Second + 1, "tidings.delay.01", []int{1}},
		{5 * time.Second, "tidings.delay.02", []int{0, 2}},
		{30 * 24 * time.Hour, "tidings.delay.21", []int{8, 10, 11, 15, 16, 17, 18, 21}},
	} {
		m := outgoing{exchange: "to", msg: amqp.Publishing{Headers: amqp.Table{}}}
		if err := n.delayBy(&m, c.delay); err != nil {
			t.Errorf("%v: %v", c.delay, err)
			continue
		}
		want := amqp.Table{dueHeader: "to"}
		var sum time.Duration
		for _, k := range c.tiers {
			want[delayHeaderOf(k)] = true
			sum += time.Second << k
		}
		if diff := cmp.Diff(want, m.msg.Headers); diff != "" || m.exchange != c.exchange {
			t.Errorf("%v: by %s, headers (-want +got):\n%s", c.delay, m.exchange, diff)
		}
		if sum < c.delay || sum-c.delay >= time.Second {
			t.Errorf("%v: the tiers of the test are %v", c.delay, sum)
		}
	}
	m := outgoing{msg: amqp.Publishing{Headers: amqp.Table{}}}
	if err := n.delayBy(&m, 30*24*time.Hour+1); !errors.Is(err, transports.ErrUnsupported) {
		t.Errorf("over 30 days: %v; want ErrUnsupported", err)
	}
}

func TestDelayThroughSeveralTiers(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	ch := b.subscribe(b.Transport, s)
	called := time.Now()
	if err := b.Requeue(t.Context(), s.Name, newMessage(t, "3 s"), 2500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	batch := []transports.Outgoing{
		{Topic: "a", Message: newMessage(t, "2 s"), Delay: 1500 * time.Millisecond},
		{Topic: "a", Message: newMessage(t, "now")},
	}
	if err := b.PublishBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	b.ack(ch, "now")
	b.ack(ch, "2 s")
	b.ack(ch, "3 s")
	if took := time.Since(called); took < 3*time.Second-2*time.Millisecond {
		t.Errorf("the last arrived after %v", took)
	}
}

// A delay queue that can't pass a message on waits with all that is behind it. The
// subscription is removed before its messages wait: on a slow machine, some would be due
// before a removal that comes later.
func TestWhatNobodyWaitsForBlocksNoTier(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	gone, stays := b.sub("gone", 1), b.sub("stays", 1)
	b.subscribe(b.Transport, gone)
	ch := b.subscribe(b.Transport, stays)
	unrouted := b.depth(b.names.unrouted)
	const messages = 40
	b.remove(gone.Name)
	var requeued []outgoing // as Requeue does, which refuses once the subscription is gone
	for i := range messages {
		m := b.copyOf(newMessage(t, strconv.Itoa(i)))
		m.exchange, m.key = b.names.retry, b.names.queue(gone.Name)
		if err := b.names.delayBy(&m, time.Second); err != nil {
			t.Fatal(err)
		}
		requeued = append(requeued, m)
	}
	if err := errors.Join(b.store(t.Context(), requeued...)...); err != nil {
		t.Fatal(err)
	}
	if err := b.PublishBatch(t.Context(), []transports.Outgoing{{Topic: "nobody", Message: newMessage(t, "x"), Delay: time.Second}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Requeue(t.Context(), stays.Name, newMessage(t, "mine"), time.Second); err != nil {
		t.Fatal(err)
	}
	b.ack(ch, "mine")
	b.eventually("what nobody waits for is kept", func() bool { return b.depth(b.names.unrouted) >= unrouted+messages })
}

// The broker drops what it takes for a dead-letter circle without a word: the same
// message through the same tier again.
func TestOneMessageIsDelayedAgainAndAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	ch := b.subscribe(b.Transport, s)
	b.publish("1")
	for range 3 {
		msg := b.receive(ch)
		if err := b.Requeue(t.Context(), s.Name, msg, time.Second); err != nil {
			t.Fatal(err)
		}
		msg.Ack()
	}
	msg := b.ack(ch, "1")
	if diff := cmp.Diff(map[string]string{"ce_source": "test", "tidings_topic": "a"}, map[string]string(msg.Metadata)); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

// A message that came through somebody else's dead-letter exchange is delayed as any
// other, and keeps what the broker wrote on it, under a name that the broker passes over.
func TestForeignDeadLetterIsDelayed(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	ch := b.subscribe(b.Transport, s)
	waiting, err := b.raw.QueueDeclare("", false, true, true, false, amqp.Table{
		"x-message-ttl": int64(1), "x-dead-letter-exchange": b.id, "x-dead-letter-routing-key": "a",
	})
	if err != nil {
		t.Fatal(err)
	}
	foreign := amqp.Publishing{MessageId: "f", Body: []byte("f"), Headers: amqp.Table{"CC": []any{}, "n": int64(7)}}
	if err := b.raw.PublishWithContext(t.Context(), "", waiting.Name, false, false, foreign); err != nil {
		t.Fatal(err)
	}
	msg := b.receive(ch)
	death := msg.Metadata["x-death"]
	if death == "" || msg.Metadata["n"] != "7" {
		t.Fatalf("metadata: %v", msg.Metadata)
	}
	for range 2 {
		if err := b.Requeue(t.Context(), s.Name, msg, time.Second); err != nil {
			t.Fatal(err)
		}
		msg.Ack()
		if msg = b.receive(ch); msg.Metadata["x-death"] != death || msg.Metadata["n"] != "7" {
			t.Errorf("metadata after a delay: %v; want x-death %s", msg.Metadata, death)
		}
	}
	msg.Ack()
}

package rabbitmq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
)

// full binds a queue that takes 3 messages and refuses the rest, as a policy with
// max-length and reject-publish makes it.
func (b *bench) full(topic string) string {
	b.Helper()
	queue, err := b.raw.QueueDeclare("", false, true, true, false, amqp.Table{"x-max-length": int64(3), "x-overflow": "reject-publish"})
	if err != nil {
		b.Fatal(err)
	}
	if err := b.raw.QueueBind(queue.Name, topic, b.id, false, nil); err != nil {
		b.Fatal(err)
	}
	return queue.Name
}

// A queue that refuses an event gets few further tries, for each of them is a copy for the
// queues that have taken it.
func TestRefusedPublishDoesNotMultiply(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.out.nackDelay = time.Millisecond
	healthy := b.sub("healthy", 1)
	b.declared(healthy)
	b.full("a")
	b.publish("1", "2", "3")
	err := b.Publish("a", newMessage(t, "one"))
	if !errors.Is(err, errNacked) || !strings.Contains(err.Error(), "in 6 tries") {
		t.Errorf("publish: %v; want that it was refused in 6 tries", err)
	}
	b.eventually("the healthy queue has the 3 that were taken, and a copy for each try", func() bool { return b.ready(healthy.Name) >= 3+1+nackTries })
	before := b.ready(healthy.Name)
	if before > 3+1+nackTries {
		t.Errorf("the healthy queue has %d", before)
	}
	const n = 100
	var batch []*message.Message
	for i := range n {
		batch = append(batch, newMessage(t, fmt.Sprint(i)))
	}
	if err := b.Publish("a", batch...); !errors.Is(err, errNacked) {
		t.Errorf("publish of a batch: %v; want that it was refused", err)
	}
	b.eventually("the healthy queue has all of it", func() bool { return b.ready(healthy.Name) >= before+n+nackTries })
	if got := b.ready(healthy.Name) - before; got > n+nackTries {
		t.Errorf("the healthy queue has %d messages for %d events", got, n)
	}
	other := b.sub("other", 1)
	other.Topics = []string{"b"}
	b.declared(other)
	if err := b.Publish("b", newMessage(t, "x")); err != nil { // everybody else goes on
		t.Error(err)
	}
}

// When a full queue takes messages again, slowly, a batch gets through.
func TestNackedBatchGetsThrough(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.out.nackDelay = 200 * time.Millisecond // the tries are not over before a busy machine has made room
	healthy := b.sub("healthy", 1)
	b.declared(healthy)
	full := b.full("a")
	const n = 40
	var batch []*message.Message
	for i := range n {
		batch = append(batch, newMessage(t, fmt.Sprint(i)))
	}
	result := make(chan error, 1)
	go func() { result <- b.Publish("a", batch...) }()
	taken := make(map[string]bool)
	for len(taken) < n {
		d, ok, err := b.raw.Get(full, true)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			taken[d.MessageId] = true
		}
		select {
		case err := <-result:
			if err != nil {
				t.Fatalf("publish: %v, with %d taken", err, len(taken))
			}
			result <- nil
		default:
		}
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// A message for one queue alone multiplies nowhere, so it is tried for as long as the context
// allows: its sender has nowhere else to put it.
func TestNackedRequeueIsTriedOn(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.out.nackDelay = time.Millisecond
	queue := b.full("nothing")
	to := func() error {
		return b.store(t.Context(), outgoing{key: queue, msg: encode(newMessage(t, "1"))})[0]
	}
	for range 3 {
		if err := to(); err != nil {
			t.Fatal(err)
		}
	}
	result := make(chan error, 1)
	go func() { result <- to() }()
	const longEnough = 2 * (1 << (nackTries + 1)) * time.Millisecond
	select {
	case err := <-result:
		t.Fatalf("it was given up: %v", err)
	case <-time.After(longEnough):
	}
	if _, ok, err := b.raw.Get(queue, true); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// RabbitMQ 3.10 nacks, for minutes, all that is published on a channel whose first message met
// the election of a leader. Others get theirs through, so the channel is replaced.
func TestNackingChannelIsReplaced(t *testing.T) {
	t.Parallel()
	f := newMethodProxy(t, brokerURL(t))
	b := newBench(t, nil)
	b.declared(b.sub("s", 1))
	cfg := b.cfg
	cfg.URLs, cfg.PublishChannels = []string{f.url}, 1
	tr := mustOpen(t, cfg)
	t.Cleanup(func() { _ = tr.Close() })
	tr.out.nackDelay = time.Millisecond
	if err := tr.Publish("a", newMessage(t, "first")); err != nil {
		t.Fatal(err)
	}
	var broken uint16
	nacks, closed := 0, false
	f.mu.Lock()
	f.change = func(channel uint16, method uint32, payload []byte) {
		if broken == 0 && method == basicAck {
			broken = channel
		}
		if channel != broken {
			return
		}
		switch method {
		case channelCloseOK:
			closed = true
		case basicAck:
			nacks++
			binary.BigEndian.PutUint32(payload, basicNack)
		}
	}
	f.mu.Unlock()
	b.eventually("the channel is replaced", func() bool {
		if err := tr.Publish("a", newMessage(t, "x")); err != nil {
			t.Fatalf("publish: %v", err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		return closed
	})
	f.mu.Lock()
	seen := nacks
	f.mu.Unlock()
	for range 20 {
		if err := tr.Publish("a", newMessage(t, "x")); err != nil {
			t.Fatal(err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if nacks != seen || seen == 0 {
		t.Errorf("%d messages were nacked, %d of them afterwards", nacks, nacks-seen)
	}
}

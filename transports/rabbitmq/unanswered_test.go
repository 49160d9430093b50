package rabbitmq

import (
	"context"
	"encoding/binary"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// swallow makes a confirm one of a message that was never sent.
func swallow(payload []byte) {
	binary.BigEndian.PutUint64(payload[4:], 1<<40)
	payload[12] = 0 // of this message only
}

// A message that gets no answer on its own channel lets the next ones pass, and is not sent again.
func TestUnansweredMessageIsLeft(t *testing.T) {
	t.Parallel()
	f := newMethodProxy(t, brokerURL(t))
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.declared(s)
	cfg := b.cfg
	cfg.URLs = []string{f.url}
	tr := mustOpen(t, cfg)
	t.Cleanup(func() { _ = tr.Close() })
	f.mu.Lock()
	f.change = func(_ uint16, method uint32, payload []byte) {
		if method == basicAck {
			swallow(payload)
		}
	}
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := newCall(ctx, []outgoing{
		{exchange: b.id, key: "a", msg: encode(newMessage(t, "unanswered"))},
		{exchange: b.id + ".missing", key: "a", msg: encode(newMessage(t, "refused"))},
	})
	tr.out.isolator.add(job{call: c, indexes: []int{0, 1}})
	b.eventually("the second message is refused", func() bool { return !c.wanted(1) })
	if n := b.ready(s.Name); n != 1 {
		t.Errorf("the first message was sent %d times", n)
	}
	if !c.wanted(0) {
		t.Error("the first message has a result")
	}
	cancel()
	if err := c.wait(&tr.out)[1]; !isCode(err, amqp.NotFound) {
		t.Errorf("the second message: %v; want that it is refused", err)
	}
}

// A message that gets no answer on a lane does not hold the results of those behind it.
func TestUnansweredMessageLetsOthersPass(t *testing.T) {
	t.Parallel()
	f := newMethodProxy(t, brokerURL(t))
	b := newBench(t, func(c *Config) { c.PublishChannels = 1 })
	b.declared(b.sub("s", 1))
	cfg := b.cfg
	cfg.URLs = []string{f.url}
	tr := mustOpen(t, cfg)
	t.Cleanup(func() { _ = tr.Close() })
	swallowed := make(chan struct{})
	f.mu.Lock()
	f.change = func(_ uint16, method uint32, payload []byte) {
		if method == basicAck && binary.BigEndian.Uint64(payload[4:]) == 1 {
			swallow(payload)
			close(swallowed)
		}
	}
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := newCall(ctx, []outgoing{{exchange: b.id, key: "a", msg: encode(newMessage(t, "unanswered"))}})
	tr.out.send(first)
	<-swallowed
	patient, stop := context.WithTimeout(t.Context(), testPatience)
	defer stop()
	for _, topic := range []string{"a", "nothing"} { // the second is returned
		err := tr.out.publish(patient, []outgoing{{exchange: b.id, key: topic, msg: encode(newMessage(t, topic))}})[0]
		if want := map[string]error{"nothing": errReturned}[topic]; err != want { //nolint:errorlint // as it is
			t.Errorf("%s: %v; want %v", topic, err, want)
		}
	}
	if !first.wanted(0) {
		t.Error("the first message has a result")
	}
}

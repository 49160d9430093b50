package rabbitmq

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
)

// A single event does not wait for the end of a large batch on the same channel.
func TestLargeBatchDoesNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	g := newGate(t, brokerURL(t))
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.declared(s)
	cfg := b.cfg
	cfg.URLs, cfg.PublishChannels, cfg.ConfirmWindow = []string{g.url}, 1, 16
	tr := mustOpen(t, cfg)
	defer func() { _ = tr.Close() }()
	if err := tr.Publish("a", newMessage(t, "first")); err != nil { // the channel is made
		t.Fatal(err)
	}
	const n = 2000
	var batch []*message.Message
	for i := range n {
		batch = append(batch, newMessage(t, fmt.Sprint(i)))
	}
	var publishing sync.WaitGroup
	g.door.Lock()
	publishing.Go(func() {
		if err := tr.Publish("a", batch...); err != nil {
			t.Errorf("the batch: %v", err)
		}
	})
	func() {
		defer g.door.Unlock()
		b.eventually("the window is full", func() bool { return b.ready(s.Name) == 1+cfg.ConfirmWindow })
		publishing.Go(func() {
			if err := tr.Publish("a", newMessage(t, "single")); err != nil {
				t.Errorf("the single one: %v", err)
			}
		})
		b.eventually("the single one waits for the lane", func() bool { return len(tr.out.lanes[0].queue) == 1 })
	}()
	publishing.Wait()
	var ids []string
	for range n + 2 {
		d, ok, err := b.raw.Get(b.names.queue(s.Name), true)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		ids = append(ids, d.MessageId)
	}
	if at := slices.Index(ids, "single"); at > n/10 {
		t.Errorf("the single one is number %d of %d", at, len(ids))
	}
	if ids = slices.DeleteFunc(ids, func(id string) bool { return id == "single" || id == "first" }); !slices.EqualFunc(ids, batch, func(id string, m *message.Message) bool { return id == m.UUID }) {
		t.Error("the batch has lost its order")
	}
}

// A publisher whose messages are refused again and again, which closes the channel each time,
// closes it for others once.
func TestRefusedPublisherDisturbsOthersOnce(t *testing.T) {
	t.Parallel()
	f := newMethodProxy(t, brokerURL(t))
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.declared(s)
	cfg := b.cfg
	cfg.URLs = []string{f.url}
	tr := mustOpen(t, cfg)
	defer func() { _ = tr.Close() }()
	var opened []int64
	channels := func() (now []int64) {
		for _, l := range tr.out.lanes {
			now = append(now, l.opened.Load())
		}
		return now
	}
	b.eventually("the lanes have channels", func() bool { opened = channels(); return !slices.Contains(opened, 0) })

	const callers, each, refused = 4, 100, 8
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for range refused {
			m := outgoing{exchange: b.id + ".missing", key: "a", msg: encode(newMessage(t, "refused"))}
			if err := tr.out.publish(t.Context(), []outgoing{m})[0]; !isCode(err, amqp.NotFound) {
				t.Errorf("to a missing exchange: %v; want the broker's refusal", err)
			}
		}
	})
	for caller := range callers {
		publishing.Go(func() {
			for i := range each {
				if err := tr.Publish("a", newMessage(t, fmt.Sprint(caller, "-", i))); err != nil {
					t.Errorf("publish: %v", err)
				}
			}
		})
	}
	publishing.Wait()
	changed := 0
	for i, at := range channels() {
		if at != opened[i] {
			changed++
		}
	}
	if changed > 1 {
		t.Errorf("%d lanes have another channel; want 1 at most", changed)
	}
	// One channel each for the connection's topology, the lanes, the refused messages, and what
	// was in doubt after the first of them.
	if n, most := f.channels(), 1+len(opened)+1+refused+5; n > most {
		t.Errorf("%d channels were opened; want %d at most", n, most)
	}
	if n := b.ready(s.Name); n < callers*each {
		t.Errorf("%d of %d events are there", n, callers*each)
	}
}

// A call that the broker refuses a part of gets the rest through, in order.
func TestRefusedPartOfABatch(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.PublishChannels, c.ConfirmWindow = 1, 8 })
	s := b.sub("s", 1)
	b.declared(s)
	for round := range 2 { // the second time, the address is known
		const n = 100
		messages := make([]outgoing, n)
		for i := range messages {
			messages[i] = outgoing{exchange: b.id, key: "a", msg: encode(newMessage(t, fmt.Sprint(i)))}
			if i%10 == 5 {
				messages[i].exchange = b.id + ".missing"
			}
		}
		for i, err := range b.out.publish(t.Context(), messages) {
			if i%10 == 5 && !isCode(err, amqp.NotFound) || i%10 != 5 && err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		last := -1
		for got := 0; ; got++ {
			d, ok, err := b.raw.Get(b.names.queue(s.Name), true)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				if got < n-n/10 {
					t.Errorf("round %d: %d messages", round, got)
				}
				break
			}
			var i int
			if _, err := fmt.Sscan(d.MessageId, &i); err != nil {
				t.Fatal(err)
			}
			if i > last+2 { // a copy of one that was in doubt may come again
				t.Errorf("round %d: %d after %d", round, i, last)
			}
			last = max(last, i)
		}
	}
}

// Addresses that are refused are forgotten: when messages are taken again, and when there are many.
func TestRefusedAddressesAreBounded(t *testing.T) {
	t.Parallel()
	var r refusals
	for i := range 3 * refusedAtMost {
		r.note(&outgoing{exchange: "e", key: fmt.Sprint(i)}, &amqp.Error{Code: amqp.AccessRefused})
	}
	if n := len(*r.addresses.Load()); n != refusedAtMost {
		t.Errorf("%d addresses are kept", n)
	}
	for i := range 3 * refusedAtMost {
		r.forget(&outgoing{exchange: "e", key: fmt.Sprint(i)})
	}
	if r.addresses.Load() != nil {
		t.Error("they are not forgotten")
	}
	r.note(&outgoing{exchange: "e", key: "bad"}, &amqp.Error{Code: amqp.PreconditionFailed}) // because of the message
	if r.has(&outgoing{exchange: "e", key: "bad"}) {
		t.Error("an address is blamed for a message")
	}
}

// An exchange that was missing and is there again is published to as before.
func TestRefusalIsForgotten(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	exchange := b.id + ".late"
	publish := func() error {
		return b.out.publish(t.Context(), []outgoing{{exchange: exchange, key: "a", msg: encode(newMessage(t, "1"))}})[0]
	}
	if err := publish(); !isCode(err, amqp.NotFound) {
		t.Errorf("to a missing exchange: %v", err)
	}
	if err := b.raw.ExchangeDeclare(exchange, amqp.ExchangeFanout, false, true, false, false, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.raw.ExchangeDelete(exchange, false, false) })
	if err := publish(); !errors.Is(err, errReturned) {
		t.Errorf("when it is there: %v", err)
	}
	if b.out.refused.addresses.Load() != nil {
		t.Error("the refusal is kept")
	}
}

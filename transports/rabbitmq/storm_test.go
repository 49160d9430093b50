package rabbitmq

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A receiver that nacks everything, as a plain Watermill router does with what its handler
// fails, does not get it back as fast as the network allows.
func TestNackStorm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		change  func(*Config)
		ordered bool
		most    int // deliveries in two seconds
	}{
		{"quorum", nil, false, 3 * (renewAfter + 1)},
		{"classic", func(c *Config) { c.QueueType = Classic }, false, 8},
		{"ordered", nil, true, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, c.change)
			s := b.sub("s", 1)
			s.Ordered = c.ordered
			ch := b.subscribe(b.Transport, s)
			b.publish("1")
			n := 0
			for over := time.After(2 * time.Second); ; n++ {
				select {
				case msg := <-ch:
					msg.Nack()
					continue
				case <-over:
				}
				break
			}
			if n < 2 || n > c.most {
				t.Errorf("delivered %d times in two seconds; want some, and %d at most", n, c.most)
			}
			b.ack(ch, "1")
		})
	}
}

// A plain Watermill router nacks what its handler fails. One such message does not keep the
// subscription from handling others.
func TestRefusedMessageLetsOthersPass(t *testing.T) {
	t.Parallel()
	for _, concurrency := range []int{1, 4} {
		t.Run(fmt.Sprint(concurrency), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil)
			ch := b.subscribe(b.Transport, b.sub("s", concurrency))
			const others = 100
			began := time.Now()
			b.publish("refused")
			for i := range others {
				b.publish(fmt.Sprint(i))
			}
			refused := 0
			for handled := 0; handled < others || refused == 0; {
				msg := b.receive(ch)
				if msg.UUID == "refused" {
					refused++
					msg.Nack()
					continue
				}
				handled++
				msg.Ack()
			}
			// A second passes after each ten deliveries, however slow the rest is.
			if most := 2 * (renewAfter + 1) * (1 + int(time.Since(began).Seconds())); refused > most {
				t.Errorf("the refused message was delivered %d times in %v; want %d at most", refused, time.Since(began), most)
			}
			b.ack(ch, "refused")
		})
	}
}

// While no copy can be stored, a nacked message is held: to give it back would count, and
// end in the poison queue.
func TestNackedMessageIsHeldWhileNothingCanBeStored(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.declared(s)
	b.publish("1")
	b.crash(s.Name, renewAfter)
	ctx, stop := contextWithStop(t)
	ch, err := b.Subscribe(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	msg := b.receive(ch)
	b.pub.mu.Lock()
	b.pub.blocked = true // as the broker says when it is short of memory
	b.pub.mu.Unlock()
	msg.Nack()
	select {
	case <-ch:
		t.Error("the message went back")
	case <-time.After(11 * patience):
	}
	b.pub.mu.Lock()
	b.pub.blocked = false
	b.pub.changed()
	b.pub.mu.Unlock()
	b.ack(ch, "1")
	stop()
}

func TestDeletedTierIsMadeAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.declared(s)
	if err := b.ensureDelays(t.Context()); err != nil {
		t.Fatal(err)
	}
	waiting := b.names.delay(delayQueues - 1)
	if err := b.raw.ExchangeDelete(waiting, false, false); err != nil {
		t.Fatal(err)
	}
	if err := b.Requeue(t.Context(), s.Name, newMessage(t, b.id), maxDelay); err != nil {
		t.Errorf("requeue: %v", err)
	}
	for {
		d, ok, err := b.raw.Get(waiting, false)
		if err != nil || !ok {
			t.Fatalf("the message does not wait in %s: %v", waiting, err)
		}
		if d.MessageId == b.id {
			if err := d.Ack(false); err != nil {
				t.Error(err)
			}
			return
		}
	}
}

// A subscription that is removed a second time, when the first removal is forgotten, ends
// as well.
func TestRemovedTwice(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	tr := b.open()
	tr.removedExpiry = 3 * time.Second // a busy machine must see the removal within it
	s := b.sub("s", 1)
	if err := tr.RemoveSubscription(t.Context(), s.Name); err != nil {
		t.Fatal(err)
	}
	ch := b.subscribe(tr, s)
	began := time.Now()
	b.eventually("the removal is forgotten", func() bool { return time.Since(began) > 3*tr.removedExpiry })
	if err := tr.RemoveSubscription(t.Context(), s.Name); err != nil {
		t.Fatal(err)
	}
	select {
	case _, open := <-ch:
		if open {
			t.Error("a message")
		}
	case <-time.After(testPatience):
		t.Error("the subscription goes on")
	}
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	if _, err := tr.Depth(ctx, s.Name); err == nil {
		t.Error("the queue was made again")
	}
	if _, err := b.raw.QueueDelete(b.names.removed(s.Name), false, false, false); err != nil { // else it has other arguments
		t.Error(err)
	}
}

// What has grown fits whatever it consists of.
func TestShrinkFits(t *testing.T) {
	t.Parallel()
	for _, length := range []int{0, 100, keptWhenShort, keptWhenShort + 1, 5000} {
		headers := amqp.Table{idHeader: strings.Repeat("i", 200), watermillID: strings.Repeat("i", 200)}
		for i := 0; headerSize(headers) <= defaultFrameSize+2000; i++ {
			headers[fmt.Sprintf("%s-%d", strings.Repeat("k", 100), i)] = strings.Repeat("v", length)
		}
		shrink(headers, defaultFrameSize)
		if size := headerSize(headers); size > defaultFrameSize {
			t.Errorf("values of %d bytes: %d bytes are left", length, size)
		}
		if headers[idHeader] != strings.Repeat("i", 200) || headers[truncatedHeader] == nil {
			t.Errorf("values of %d bytes: id %v, shortened: %v", length, headers[idHeader], headers[truncatedHeader])
		}
	}
}

// A message that has expired, which its publisher can ask for, has killed nobody.
func TestExpiredMessageIsListedAsSuch(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.declared(s)
	foreign := amqp.Publishing{MessageId: "1", Expiration: "1"}
	if err := b.raw.PublishWithContext(t.Context(), b.id, "a", false, false, foreign); err != nil {
		t.Fatal(err)
	}
	b.eventually("it has expired", func() bool { return b.depth(b.names.poison(s.Name)) == 1 })
	if list := b.list(s.Name); len(list) != 1 || list[0].Reason != "given up by the broker (expired)" {
		t.Errorf("listed: %+v", list)
	}
}

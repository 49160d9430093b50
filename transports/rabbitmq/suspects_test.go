package rabbitmq

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

// Messages that two deploys have interrupted are handled 1, 2, 4 and 8 together.
func TestInterruptedMessagesAreHandledTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 10)
	b.declared(s)
	var ids []string
	for i := range 10 {
		ids = append(ids, fmt.Sprint(i))
	}
	b.publish(ids...)
	for range suspectAfter {
		var held []uint64
		for range ids {
			d, ok, err := b.raw.Get(b.names.queue(s.Name), false)
			if err != nil || !ok {
				t.Fatalf("get: %t, %v", ok, err)
			}
			held = append(held, d.DeliveryTag)
		}
		for _, tag := range held {
			if err := b.raw.Reject(tag, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	ch := b.subscribe(b.Transport, s)
	for _, together := range []int{1, 2, 4, 3} {
		var msgs []*message.Message
		for range together {
			msgs = append(msgs, b.receive(ch))
		}
		if together < 4 { // more can't be, once all are there
			b.quiet(ch)
		}
		for _, msg := range msgs {
			msg.Ack()
		}
	}
	b.publish("a", "b", "c") // and others again beside each other
	b.receiveAll(ch, "a", "b", "c")
}

func TestSuspectsWiden(t *testing.T) {
	t.Parallel()
	var s suspects
	type step struct{ count, room int }
	var got []step
	for _, count := range []int{0, 1, 2, 2, 2, 3, 3, 2} {
		got = append(got, step{count, s.room(count, 10)})
		s.survived(count)
	}
	want := []step{{0, 10}, {1, 10}, {2, 1}, {2, 2}, {2, 3}, {3, 1}, {3, 2}, {2, 3}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A process that dies of a message, with others beside it, finds it: it is poisoned, and all
// others are handled. From the broker's view, to die is to lose the connection.
func TestMessageThatKillsItsProcessIsFound(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 8)
	b.declared(s)
	var ids []string
	for i := range 20 {
		ids = append(ids, fmt.Sprint(i))
	}
	killer := ids[5]
	b.publish(ids...)
	handled := make(map[string]bool)
	crashes := 0
	for ; len(handled) < len(ids)-1 || len(b.list(s.Name)) == 0; crashes++ {
		if crashes > 2*crashLimit {
			t.Fatalf("after %d crashes, %d are handled and %d poisoned", crashes, len(handled), len(b.list(s.Name)))
		}
		b.process(s, killer, handled, len(ids)-1)
	}
	list := b.list(s.Name)
	if len(list) != 1 || list[0].Message.UUID != killer || len(handled) != len(ids)-1 || handled[killer] {
		t.Errorf("after %d crashes, %v is handled and %+v poisoned", crashes, handled, list)
	}
}

// process handles messages until one kills it, or all others are handled and nothing more
// comes.
func (b *bench) process(s transports.Subscription, killer string, handled map[string]bool, all int) {
	b.Helper()
	var n testserver.Network
	cfg := b.cfg
	cfg.Dial = n.Dial
	tr := mustOpen(b.T, cfg)
	defer tr.Close() //nolint:errcheck // its connections are cut
	defer n.Cut()
	ch := b.subscribe(tr, s)
	var held []*message.Message
	for {
		select {
		case msg := <-ch:
			held = append(held, msg)
			if msg.UUID == killer {
				return
			}
			if len(held) < 3 && len(handled)+len(held) < all { // handlers take a while
				select {
				case next := <-ch:
					held = append(held, next)
					if next.UUID == killer {
						return
					}
				case <-time.After(50 * time.Millisecond):
				}
			}
			for _, msg := range held {
				handled[msg.UUID] = true
				msg.Ack()
			}
			held = nil
		case <-time.After(200 * time.Millisecond):
			if len(handled) == all && len(b.list(s.Name)) > 0 {
				return
			}
		}
	}
}

// Where the broker tells what is given back from what is lost, a shutdown that interrupts a
// message does not count against it.
func TestShutdownLeavesNoMark(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 4)
	b.declared(s)
	ids := []string{"1", "2", "3", "4", "5", "6"}
	b.publish(ids...)
	for range 3 {
		tr := mustOpen(t, b.cfg)
		b.receive(b.subscribe(tr, s))
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for range ids {
		d, ok, err := b.raw.Get(b.names.queue(s.Name), true)
		if err != nil || !ok {
			t.Fatalf("get: %t, %v", ok, err)
		}
		got = append(got, d.MessageId)
		if _, told := d.Headers["x-acquired-count"]; told && deliveries(&d) > 0 {
			t.Errorf("message %s has the count %d", d.MessageId, deliveries(&d))
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

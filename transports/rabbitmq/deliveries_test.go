package rabbitmq

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// crash delivers the first message of a subscription to a process that dies with it, n times.
// Every version of RabbitMQ counts a rejected message as it counts one of a lost connection.
func (b *bench) crash(subscription string, n int) {
	b.Helper()
	for range n {
		d, ok, err := b.raw.Get(b.names.queue(subscription), false)
		if err != nil || !ok {
			b.Fatalf("get: %t, %v", ok, err)
		}
		if err := d.Reject(true); err != nil {
			b.Fatal(err)
		}
	}
}

// declared makes a subscription that nobody consumes.
func (b *bench) declared(s transports.Subscription) {
	b.Helper()
	if err := b.pub.run(b.Context(), func(ch *amqp.Channel) error { return b.declareSubscription(ch, s, nil) }); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) quiet(ch <-chan *message.Message) {
	b.Helper()
	select {
	case msg, ok := <-ch:
		b.Fatalf("received %v, %t; want nothing", msg, ok)
	case <-time.After(150 * time.Millisecond):
	}
}

func TestMessageSeenTwiceIsHandledAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 10)
	b.declared(s)
	b.publish("killer", "1", "2", "3")
	b.crash(s.Name, suspectAfter)
	ch := b.subscribe(b.Transport, s)
	killer := b.receive(ch)
	if killer.UUID != "killer" {
		t.Fatalf("received %q first", killer.UUID)
	}
	b.quiet(ch)
	if n := b.ready(s.Name); n != 3 {
		t.Errorf("%d messages are at the broker; want those beside the suspect, untouched", n)
	}
	killer.Ack()
	b.receiveAll(ch, "1", "2", "3")
}

// receiveAll receives these, in any order, and acknowledges each when it has them all.
func (b *bench) receiveAll(ch <-chan *message.Message, ids ...string) {
	b.Helper()
	var got []string
	var msgs []*message.Message
	for range ids {
		msg := b.receive(ch)
		got, msgs = append(got, msg.UUID), append(msgs, msg)
	}
	for _, msg := range msgs {
		msg.Ack()
	}
	slices.Sort(got)
	slices.Sort(ids)
	if diff := cmp.Diff(ids, got); diff != "" {
		b.Fatalf("(-want +got):\n%s", diff)
	}
}

// A suspect among others waits until those are settled, and others wait for it.
func TestSuspectWaitsUntilItIsAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 2)
	ch := b.subscribe(b.Transport, s)
	b.publish("1", "2", "3") // the first is beside the prefetch, so this is as much as the consumer gets
	first, second := b.receive(ch), b.receive(ch)
	b.publish("suspect")
	b.crash(s.Name, suspectAfter)
	second.Ack()
	third := b.receive(ch)
	b.eventually("the suspect is delivered", func() bool { return b.ready(s.Name) == 0 })
	first.Ack()
	b.quiet(ch)
	third.Ack()
	alone := b.receive(ch)
	if alone.UUID != "suspect" {
		t.Fatalf("received %q", alone.UUID)
	}
	b.publish("4")
	b.quiet(ch)
	alone.Ack()
	b.ack(ch, "4")
}

// A message can come here with a count that is another broker's, by a shovel for example.
func TestCountOfAnotherBrokerIsPassedOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	ch := b.subscribe(b.Transport, b.sub("s", 2))
	foreign := encode(newMessage(t, "1"))
	foreign.Headers["x-delivery-count"] = int64(crashLimit)
	if err := b.raw.PublishWithContext(t.Context(), b.id, "a", false, false, foreign); err != nil {
		t.Fatal(err)
	}
	b.ack(ch, "1")
}

func TestMessageThatKillsIsPoisoned(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 10)
	b.declared(s)
	b.publish("killer", "1", "2")
	b.crash(s.Name, crashLimit)
	ch := b.subscribe(b.Transport, s)
	b.receiveAll(ch, "1", "2")
	list := b.list(s.Name)
	if len(list) != 1 || list[0].Message.UUID != "killer" {
		t.Fatalf("poisoned: %+v; want the killer", list)
	}
	p := list[0]
	if !strings.Contains(p.Reason, "delivered 20 times and settled by nobody") || p.Topic != "a" || p.Subscription != s.Name || p.LastFailure.IsZero() {
		t.Errorf("listed as %+v", p)
	}
	if n, err := b.RequeuePoisoned(t.Context(), s.Name, p.Handle); n != 1 || err != nil {
		t.Fatalf("requeue: %d, %v", n, err)
	}
	b.ack(ch, "killer")
}

func (b *bench) list(subscription string) (list []transports.Poisoned) {
	b.Helper()
	for p, err := range b.Poisoned(b.Context(), subscription, transports.PoisonPage{}) {
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

// The broker gives up a message that was delivered more often than its limit.
func TestWhatTheBrokerGivesUpIsListedAndRedriven(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 10)
	b.declared(s)
	b.publish("1")
	b.crash(s.Name, deliveryLimit+1)
	b.eventually("the broker has given it up", func() bool { return b.depth(b.names.poison(s.Name)) == 1 })
	list := b.list(s.Name)
	if len(list) != 1 || !strings.Contains(list[0].Reason, "given up by the broker (delivery_limit)") {
		t.Fatalf("listed: %+v", list)
	}
	if p := list[0]; p.Message.UUID != "1" || p.Topic != "a" || p.Subscription != s.Name || p.LastFailure.IsZero() {
		t.Errorf("listed as %+v", p)
	}
	if n, err := b.RequeuePoisoned(t.Context(), s.Name, list[0].Handle); n != 1 || err != nil {
		t.Fatalf("requeue: %d, %v", n, err)
	}
	msg := b.ack(b.subscribe(b.Transport, s), "1")
	if diff := cmp.Diff(message.Metadata{"ce_source": "test", "tidings_topic": "a"}, msg.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

// Expired messages without an id are the broker's own to give up. What is chosen of them
// goes, and nothing else.
func TestExpiredMessagesAreChosen(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.declared(s)
	for _, body := range []string{"1", "2", "3", "3", "4"} {
		if err := b.raw.PublishWithContext(t.Context(), b.id, "a", false, false, amqp.Publishing{Body: []byte(body), Expiration: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	b.eventually("all have expired", func() bool { return b.depth(b.names.poison(s.Name)) == 5 })
	var chosen []transports.PoisonHandle
	for _, p := range b.list(s.Name) {
		if body := string(p.Message.Payload); body == "2" || body == "3" && len(chosen) < 2 {
			chosen = append(chosen, p.Handle)
		}
		if !strings.Contains(p.Reason, "given up by the broker (expired)") {
			t.Errorf("the reason is %q", p.Reason)
		}
	}
	if n, err := b.DiscardPoisoned(t.Context(), s.Name, chosen...); n != 2 || err != nil {
		t.Errorf("discarded %d, %v; want 2", n, err)
	}
	left := ""
	for _, p := range b.list(s.Name) {
		left += string(p.Message.Payload)
	}
	if left != "134" {
		t.Errorf("%q are left; want 1, 3 and 4", left)
	}
}

// A process that lives and gives a message back is not what the limits are for.
func TestCountBeginsAnewForThoseWhoLive(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.declared(s)
	b.publish("1")
	b.crash(s.Name, renewAfter)
	ch := b.subscribe(b.Transport, s)
	b.receive(ch).Nack()
	msg := b.receive(ch) // the copy, after a second
	msg.Nack()
	if n := len(b.list(s.Name)); n != 0 {
		t.Errorf("%d are poisoned", n)
	}
	b.receive(ch).Ack()
	b.eventually("no copy is left", func() bool { return b.ready(s.Name) == 0 })
}

// Listing counts as a delivery too, and must not use up a limit.
func TestListingManyTimesChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.declared(s)
	for _, id := range []string{"1", "2"} {
		if err := b.Poison(t.Context(), s.Name, newMessage(t, id)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 110 { // the broker's own default limit is 20
		if n := len(b.list(s.Name)); n != 2 {
			t.Fatalf("listed for the %dth time: %d messages", i+1, n)
		}
	}
}

// Two who look into one poison queue see all of it, one after the other.
func TestListingAtTheSameTime(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.declared(s)
	const messages = 250
	for range messages {
		if err := b.Poison(t.Context(), s.Name, newMessage(t, "")); err != nil { // without an id, none is another's copy
			t.Fatal(err)
		}
	}
	counts := make(chan int)
	for _, tr := range []*Transport{b.Transport, b.open(), b.open()} {
		for range 3 {
			go func() {
				n := 0
				for _, err := range tr.Poisoned(t.Context(), s.Name, transports.PoisonPage{}) {
					if err != nil {
						t.Error(err)
					}
					n++
				}
				counts <- n
			}()
		}
	}
	for range 9 {
		if n := <-counts; n != messages {
			t.Errorf("listed %d of %d", n, messages)
		}
	}
}

// A shutdown with messages in flight keeps the order of an ordered subscription.
func TestOrderedSubscriptionKeepsItsOrderAtShutdown(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 5)
	s.Ordered = true
	b.declared(s)
	ids := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"}
	b.publish(ids...)
	ctx, stop := contextWithStop(t)
	ch, err := b.Subscribe(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	one, two := b.receive(ch), b.receive(ch)
	second := b.subscribe(b.open(), s)
	stop()
	b.quiet(second) // the first is active until what it has in flight is settled
	two.Nack()
	one.Ack()
	if _, open := <-ch; open {
		t.Fatal("a message was delivered after the end of the intake")
	}
	for _, id := range ids[1:] {
		b.ack(second, id)
	}
}

package memory

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

func TestEverySubscriptionGetsEveryMessage(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	one := subscribe(t, tr, wide("one", "order.created"))
	two := subscribe(t, tr, wide("two", "order.*"))
	other := subscribe(t, tr, wide("other", "customer.#"))
	publish(t, tr, "order.created", "1", "2")
	publish(t, tr, "customer.created", "3")
	publish(t, tr, "order.item.added", "4")
	receiveIDs(t, one, "1", "2")
	receiveIDs(t, two, "1", "2")
	receiveIDs(t, other, "3")
	if d := depth(t, tr, "two"); d.Ready+d.InFlight != 2 {
		t.Errorf("two holds %+v; order.item.added is not order.*", d)
	}
}

func TestConsumersOfOneSubscriptionShareItsMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, Config{})
		here, there := connect(t, b), connect(t, b)
		publisher := connect(t, b)
		consumers := []<-chan *message.Message{
			subscribe(t, here, sub("group", "a")),
			subscribe(t, here, sub("group", "a")),
			subscribe(t, there, sub("group", "a")),
		}
		publish(t, publisher, "a", numbers(1, 4)...)
		seen := map[string]bool{}
		for _, ch := range consumers {
			seen[receive(t, ch).UUID] = true
		}
		if len(seen) != 3 {
			t.Errorf("three consumers received %v; want three messages", seen)
		}
		for _, ch := range consumers {
			receiveNothing(t, ch)
		}
	})
}

func TestConcurrencyIsNeverExceeded(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 3} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tr := newTransport(t, Config{})
				ch := subscribe(t, tr, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: limit})
				publish(t, tr, "a", numbers(1, 20)...)
				var inFlight []*message.Message
				for range limit {
					inFlight = append(inFlight, receive(t, ch))
				}
				for range 10 {
					receiveNothing(t, ch)
					wantDepth(t, tr, "s", transports.Depth{Ready: depth(t, tr, "s").Ready, InFlight: limit})
					inFlight[0].Ack()
					inFlight = append(inFlight[1:], receive(t, ch))
				}
				inFlight[0].Nack() // frees a place too
				receive(t, ch)
				receiveNothing(t, ch)
			})
		})
	}
}

func TestHugeConcurrencyMeansUnlimited(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	ch := subscribe(t, tr, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: math.MaxInt})
	publish(t, tr, "a", numbers(1, 1000)...)
	receiveIDs(t, ch, numbers(1, 1000)...)
}

func TestMessagesArriveInOrder(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	ch := subscribe(t, tr, sub("s", "#"))
	for i, id := range numbers(1, 100) {
		publish(t, tr, fmt.Sprintf("topic.%d", i%7), id)
	}
	ackIDs(t, ch, numbers(1, 100)...)
}

func TestNackedMessageReturnsToItsPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{})
		ch := subscribe(t, tr, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 3})
		publish(t, tr, "a", numbers(1, 6)...)
		msgs := receiveIDs(t, ch, "1", "2", "3")
		msgs[1].Nack()
		msgs = append(msgs, receiveIDs(t, ch, "2")...)
		msgs[2].Nack()
		synctest.Wait() // before room is made for 4
		msgs[0].Ack()
		msgs[3].Ack()
		receiveIDs(t, ch, "3", "4", "5")
	})
}

func TestNackedMessageIsDeliveredBeforeLaterOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{})
		ch := subscribe(t, tr, sub("s", "a"))
		publish(t, tr, "a", numbers(1, 3)...)
		for range 5 {
			receiveIDs(t, ch, "1")[0].Nack()
		}
		ackIDs(t, ch, "1", "2", "3")
		wantDepth(t, tr, "s", transports.Depth{})
	})
}

func TestUnsettledMessagesOfADeadConsumerReturnInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, Config{})
		dying, other := connect(t, b), connect(t, b)
		ch := subscribe(t, dying, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 5})
		publish(t, other, "a", numbers(1, 10)...)
		msgs := receiveIDs(t, ch, numbers(1, 5)...)
		msgs[1].Ack()
		wantDepth(t, other, "s", transports.Depth{Ready: 4, InFlight: 5}) // the fifth place is on offer again
		if err := dying.Close(); err != nil {
			t.Fatal(err)
		}
		wantClosed(t, ch)
		ackIDs(t, subscribe(t, other, sub("s", "a")), "1", "3", "4", "5", "6", "7", "8", "9", "10")
	})
}

// A consumer that ends gives back one message while it waits for another.
func TestNackedMessageOfAnEndingConsumerGoesToAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{})
		ctx, stop := context.WithCancel(t.Context())
		ending := subscribeContext(ctx, t, tr, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 2})
		publish(t, tr, "a", "1", "2")
		msgs := receiveIDs(t, ending, "1", "2")
		other := subscribe(t, tr, sub("s", "a"))
		receiveNothing(t, other)
		stop()
		msgs[0].Nack()
		ackIDs(t, other, "1")
		receiveNothing(t, ending)
		msgs[1].Ack()
		wantClosed(t, ending)
	})
}

func TestOrderedSubscriptionHasOneActiveConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, Config{})
		first, second, third := connect(t, b), connect(t, b), connect(t, b)
		s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 2, Ordered: true}
		active := subscribe(t, first, s)
		ctx, stop := context.WithCancel(t.Context())
		standby := subscribeContext(ctx, t, second, s)
		last := subscribe(t, third, s)

		publish(t, third, "a", numbers(1, 8)...)
		ackIDs(t, active, "1", "2")
		inFlight := receiveIDs(t, active, "3", "4")
		inFlight[1].Ack()
		receiveNothing(t, standby)

		_ = first.Close() // 3, and 5 on offer, go back before anyone else may take what is after them
		inFlight = receiveIDs(t, standby, "3", "5")
		receiveNothing(t, last)

		stop()
		receiveNothing(t, last) // not while the one before it has something in flight
		inFlight[1].Ack()
		inFlight[0].Ack()
		wantClosed(t, standby)
		ackIDs(t, last, "6", "7", "8")
	})
}

func TestSubscribingAgainAddsTopics(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	first := subscribe(t, tr, wide("s", "a", "b"))
	publish(t, tr, "c", "too early")
	declare(t, tr, sub("s", "b", "c"))
	publish(t, tr, "a", "1")
	publish(t, tr, "b", "2") // matches twice, comes once
	publish(t, tr, "c", "3")
	receiveIDs(t, first, "1", "2", "3")
	if d := depth(t, tr, "s"); d.Ready != 0 || d.InFlight != 3 {
		t.Errorf("depth is %+v; want three messages in flight", d)
	}
}

func TestSubscriptionStartsAtNow(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	publish(t, tr, "a", "before")
	ch := subscribe(t, tr, sub("s", "a"))
	publish(t, tr, "a", "after")
	receiveIDs(t, ch, "after")
}

func TestMessagesWaitForAConsumer(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	declare(t, tr, sub("s", "a"))
	publish(t, tr, "a", numbers(1, 3)...)
	ackIDs(t, subscribe(t, tr, sub("s", "a")), numbers(1, 3)...)
}

func TestEphemeralSubscriptionSeesWhatComesWhileItLives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 2})
		s := transports.Subscription{Name: "page", Topics: []string{"a"}, Concurrency: 1, Ephemeral: true}
		publish(t, tr, "a", "before")
		ctx, stop := context.WithCancel(t.Context())
		ch := subscribeContext(ctx, t, tr, s)
		publish(t, tr, "a", "1", "2")
		blocked := publishLater(t.Context(), tr, "a", "3")
		pending(t, blocked)

		msg := receiveIDs(t, ch, "1")[0]
		stop()
		pending(t, blocked)
		msg.Ack()
		wantClosed(t, ch)
		if _, err := tr.Depth(t.Context(), "page"); err == nil {
			t.Error("the subscription still exists when its channel is closed")
		}
		if err := result(t, blocked); err != nil {
			t.Errorf("a publisher waiting for it: %v", err)
		}

		publish(t, tr, "a", "between")
		again := subscribe(t, tr, s)
		publish(t, tr, "a", "after")
		receiveIDs(t, again, "after")
	})
}

func TestNameIsFreeWhenTheChannelIsClosed(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	s := transports.Subscription{Name: "page", Topics: []string{"a"}, Concurrency: 1, Ephemeral: true}
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for range 8 { // who make the consumer wait for the lock on its way out
		others.Go(func() {
			for ctx.Err() == nil {
				_, _ = tr.Depth(ctx, "other")
			}
		})
	}
	for range 500 {
		declare(t, tr, s)
	}
	stop()
	others.Wait()
}

func TestEphemeralSubscriptionEndsWithItsTransport(t *testing.T) {
	t.Parallel()
	b := newBroker(t, Config{})
	dying, other := connect(t, b), connect(t, b)
	ch := subscribe(t, dying, transports.Subscription{Name: "page", Topics: []string{"a"}, Concurrency: 1, Ephemeral: true})
	publish(t, other, "a", "1", "2")
	receiveIDs(t, ch, "1")
	_ = dying.Close()
	if _, err := other.Depth(t.Context(), "page"); err == nil {
		t.Error("the subscription outlived its transport")
	}
}

func TestEphemeralSubscriptionSharesItsNameWithNobody(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	durable := sub("durable", "a")
	page := sub("page", "a")
	page.Ephemeral = true
	declare(t, tr, durable)
	ch := subscribe(t, tr, page)
	durable.Ephemeral = true
	for _, s := range []transports.Subscription{page, durable, sub("page", "b")} {
		if _, err := tr.Subscribe(t.Context(), s); err == nil {
			t.Errorf("%s, ephemeral %t, was accepted", s.Name, s.Ephemeral)
		}
	}
	publish(t, tr, "b", "of the refused one")
	publish(t, tr, "a", "1")
	receiveIDs(t, ch, "1")
}

func TestSubscribeReportsEveryFault(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	_, err := tr.Subscribe(t.Context(), transports.Subscription{Topics: []string{"a.b*"}})
	if err == nil {
		t.Fatal("accepted")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errSample)
	if _, err := tr.Subscribe(ctx, sub("s", "a")); err != errSample { //nolint:errorlint // the cause itself
		t.Errorf("subscribe with an ended context: %v; want its cause", err)
	}
	if _, err := tr.Depth(t.Context(), "s"); err == nil {
		t.Error("a refused subscription exists")
	}
}

// Messages that are on offer when the intake ends go to another consumer, whose receiver
// need not have touched the channel.
func TestNotifiedConsumerTakesBackWhatNobodyReceived(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := connect(t, newBroker(t, Config{}))
		ctx, stop := context.WithCancel(t.Context())
		if _, _, err := tr.SubscribeNotified(ctx, wide("s", "a")); err != nil {
			t.Fatal(err)
		}
		publish(t, tr, "a", "1", "2", "3")
		synctest.Wait()
		stop()
		receiveIDs(t, subscribe(t, tr, wide("s", "a")), "1", "2", "3")
	})
}

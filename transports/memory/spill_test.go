package memory

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// publishFrom publishes as the handler of a delivered message does.
func publishFrom(t *testing.T, tr *Transport, handled *message.Message, topic string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := tr.Publish(topic, newMessage(handled.Context(), id)); err != nil {
			t.Errorf("publish %s: %v", id, err)
		}
	}
}

// publishForEver publishes as fast as it is let, until the transport is closed.
func publishForEver(tr *Transport, topic, id string) {
	var err error
	for err == nil {
		err = tr.Publish(topic, newMessage(context.Background(), id))
	}
}

func TestHandlerPublishesIntoItsOwnFullQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 2})
		ch := subscribe(t, tr, sub("s", "a"))
		publish(t, tr, "a", "1", "2")
		outside := publishLater(t.Context(), tr, "a", "outside")
		msg := receiveIDs(t, ch, "1")[0]
		publishFrom(t, tr, msg, "a", "3", "4")
		wantDepth(t, tr, "s", transports.Depth{Ready: 3, InFlight: 1})
		msg.Ack()
		ackIDs(t, ch, "2")
		pending(t, outside)
		ackIDs(t, ch, "3", "4", "outside")
		if err := result(t, outside); err != nil {
			t.Error(err)
		}
	})
}

func TestHandlerThatOverflowsAQueueIsHeldBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 2})
		fast := subscribe(t, tr, transports.Subscription{Name: "fast", Topics: []string{"in"}, Concurrency: 2})
		slow := subscribe(t, tr, sub("slow", "out"))
		publish(t, tr, "in", "1", "2")
		msgs := receiveIDs(t, fast, "1", "2")
		publishFrom(t, tr, msgs[0], "out", "a", "b", "c")
		publishFrom(t, tr, msgs[1], "out", "d")
		wantDepth(t, tr, "slow", transports.Depth{Ready: 3, InFlight: 1})
		msgs[0].Ack()
		msgs[1].Ack()
		publish(t, tr, "in", "3", "4") // its own queue has room
		receiveNothing(t, fast)

		ackIDs(t, slow, "a", "b") // back to its bound, which is still full
		receiveNothing(t, fast)
		ackIDs(t, slow, "c")
		receiveIDs(t, fast, "3", "4")
	})
}

func TestHandlerOverflowsSeveralQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 1})
		source := subscribe(t, tr, sub("source", "in"))
		one, two := subscribe(t, tr, sub("one", "out")), subscribe(t, tr, sub("two", "out"))
		publish(t, tr, "in", "1")
		msg := receiveIDs(t, source, "1")[0]
		publishFrom(t, tr, msg, "out", "a", "b")
		msg.Ack()
		publish(t, tr, "in", "2")
		ackIDs(t, one, "a", "b")
		receiveNothing(t, source)
		ackIDs(t, two, "a", "b")
		ackIDs(t, source, "2")
	})
}

func TestRemovalEndsHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 1})
		source := subscribe(t, tr, sub("source", "in"))
		declare(t, tr, sub("full", "out"))
		publish(t, tr, "in", "1")
		msg := receiveIDs(t, source, "1")[0]
		publishFrom(t, tr, msg, "out", "a", "b")
		msg.Ack()
		publish(t, tr, "in", "2")
		receiveNothing(t, source)

		if err := tr.RemoveSubscription(t.Context(), "full"); err != nil {
			t.Fatal(err)
		}
		msg = receiveIDs(t, source, "2")[0]

		// The other way round: a queue that is held goes, and its handler goes on.
		full := subscribe(t, tr, sub("full", "out"))
		publishFrom(t, tr, msg, "out", "c", "d")
		if err := tr.RemoveSubscription(t.Context(), "source"); err != nil {
			t.Fatal(err)
		}
		publishFrom(t, tr, msg, "out", "e")
		checkInvariants(t, tr.broker)
		msg.Ack()
		wantClosed(t, source)
		ackIDs(t, full, "c", "d", "e")
	})
}

// circle brings about, with queues of two, that b is held by a, that a, whose
// hold would close the circle, is in debt to b, and that a has room again.
func circle(t *testing.T) (tr *Transport, a, b <-chan *message.Message) {
	t.Helper()
	tr = newTransport(t, Config{QueueSize: 2})
	a, b = subscribe(t, tr, sub("a", "a")), subscribe(t, tr, sub("b", "b"))
	publish(t, tr, "a", "a1", "a2")
	publish(t, tr, "b", "b1", "b2")
	inA, inB := receiveIDs(t, a, "a1")[0], receiveIDs(t, b, "b1")[0]
	publishFrom(t, tr, inB, "a", "a3")
	publishFrom(t, tr, inA, "b", "b3", "b4")
	inB.Ack()
	receiveNothing(t, b)
	inA.Ack()
	ackIDs(t, a, "a2")
	synctest.Wait()
	checkInvariants(t, tr.broker)
	return tr, a, b
}

func TestCircleTakesNothingFromOutsideUntilThereIsRoomAllTheWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, a, b := circle(t)
		outside := publishLater(t.Context(), tr, "a", "outside")
		pending(t, outside)
		ackIDs(t, a, "a3")
		pending(t, outside)
		ackIDs(t, b, "b2")
		pending(t, outside)
		ackIDs(t, b, "b3")
		if err := result(t, outside); err != nil {
			t.Error(err)
		}
		ackIDs(t, a, "outside")
		publish(t, tr, "b", "b5") // full again, and all debts are forgotten
		publish(t, tr, "a", "a4")
	})
}

func TestDebtIsInherited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, a, b := circle(t)
		ackIDs(t, a, "a3")
		feeder := subscribe(t, tr, sub("feeder", "f"))
		publish(t, tr, "f", "f1")
		msg := receiveIDs(t, feeder, "f1")[0]
		publishFrom(t, tr, msg, "a", "a4") // a has room, and is in debt to b
		msg.Ack()
		outside := publishLater(t.Context(), tr, "f", "outside")
		pending(t, outside)
		ackIDs(t, b, "b2", "b3")
		if err := result(t, outside); err != nil {
			t.Error(err)
		}
		receiveIDs(t, feeder, "outside")
	})
}

func TestRemovalForgivesDebts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "b"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tr, a, b := circle(t)
				outside := publishLater(t.Context(), tr, "a", "outside")
				behind := publishLater(t.Context(), tr, "b", "behind")
				pending(t, outside)
				if err := tr.RemoveSubscription(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				if err := result(t, outside); err != nil {
					t.Error(err)
				}
				if name == "a" {
					pending(t, behind)
					ackIDs(t, b, "b2", "b3", "b4", "behind")
				} else {
					ackIDs(t, a, "a3", "outside")
				}
				if err := result(t, behind); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestCascadeWithASlowEndIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size, concurrency, total = 4, 3, 300
		tr := newTransport(t, Config{QueueSize: size})
		var handlers sync.WaitGroup
		handle := func(name, topic string, fn func(*message.Message)) {
			ch := subscribe(t, tr, transports.Subscription{Name: name, Topics: []string{topic}, Concurrency: concurrency})
			for range concurrency {
				handlers.Go(func() {
					for msg := range ch {
						fn(msg)
						msg.Ack()
					}
				})
			}
		}
		var arrived atomic.Int64
		handle("one", "1", func(msg *message.Message) { publishFrom(t, tr, msg, "2", msg.UUID) })
		handle("two", "2", func(msg *message.Message) { publishFrom(t, tr, msg, "3", msg.UUID) })
		handle("three", "3", func(*message.Message) {
			time.Sleep(time.Second)
			arrived.Add(1)
			for _, name := range []string{"one", "two", "three"} {
				if d, err := tr.Depth(context.Background(), name); err != nil || d.Ready+d.InFlight > size+concurrency {
					t.Errorf("%s holds %+v", name, d)
				}
			}
		})
		publish(t, tr, "1", numbers(1, total)...)
		time.Sleep(total * time.Second)
		if n := arrived.Load(); n != total {
			t.Errorf("%d of %d arrived", n, total)
		}
		_ = tr.Close()
		handlers.Wait()
	})
}

// Where publishers from outside take every place as it comes free, handlers that
// overflowed the queue still get on.
func TestHeldHandlerIsNotStarvedByPublishers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 2})
		source, busy := subscribe(t, tr, sub("source", "in")), subscribe(t, tr, sub("busy", "out"))
		var fromSource, handled atomic.Int64
		go func() {
			for msg := range source {
				if tr.Publish("out", newMessage(msg.Context(), "1")) == nil {
					fromSource.Add(1)
				}
				msg.Ack()
			}
		}()
		go func() {
			for msg := range busy {
				time.Sleep(time.Millisecond)
				handled.Add(1)
				msg.Ack()
			}
		}()
		for _, topic := range []string{"in", "out", "out", "out"} {
			go publishForEver(tr, topic, "1")
		}
		time.Sleep(time.Second)
		if f, h := fromSource.Load(), handled.Load(); f < h/10 || f > h*9/10 {
			t.Errorf("%d of %d came from the handler", f, h)
		}
		_ = tr.Close()
		time.Sleep(time.Second) // for the handlers
	})
}

// Every message goes round a ring of subscriptions some times, while publishers
// put in as much as they can. Each of these cases grew without bound when only
// holds, or only debts of one step, kept the publishers back.
func TestRingOfSubscriptionsIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hops       int
		handlers   []int // milliseconds that each takes
		publishers []int // of each topic
	}{
		{1, []int{10, 1}, []int{1, 0}},
		{2, []int{10, 1}, []int{1, 0}},
		{5, []int{1, 10}, []int{1, 0}},
		{20, []int{10, 7}, []int{2, 2}},
		{9, []int{1, 1, 6}, []int{3, 2, 0}},
		{7, []int{1, 1, 25, 1}, []int{2, 2, 1, 2}},
		{4, []int{1, 1, 1, 15}, []int{3, 0, 1, 0}},
	} {
		t.Run(fmt.Sprint(c.hops, " hops over ", c.handlers), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { goRound(t, c.hops, c.handlers, c.publishers) })
		})
	}
}

func goRound(t *testing.T, hops int, handlers, publishers []int) {
	t.Helper()
	const size = 10
	tr := newTransport(t, Config{QueueSize: size})
	var finished atomic.Int64
	for i, ms := range handlers {
		name, next := strconv.Itoa(i), strconv.Itoa((i+1)%len(handlers))
		ch := subscribe(t, tr, sub(name, name))
		go func() {
			for msg := range ch {
				time.Sleep(time.Duration(ms) * time.Millisecond)
				if left, _ := strconv.Atoi(msg.UUID); left > 0 {
					_ = tr.Publish(next, newMessage(msg.Context(), strconv.Itoa(left-1)))
				} else {
					finished.Add(1)
				}
				msg.Ack()
			}
		}()
	}
	for i, n := range publishers {
		for range n {
			go publishForEver(tr, strconv.Itoa(i), strconv.Itoa(hops))
		}
	}
	half, bound := int64(0), 2*len(handlers)*size
	for _, n := range publishers {
		bound += n * hops
	}
	for second := range 20 {
		time.Sleep(time.Second)
		checkInvariants(t, tr.broker)
		for i := range handlers {
			if d := depth(t, tr, strconv.Itoa(i)); d.Ready+d.InFlight > bound {
				t.Fatalf("%d holds %+v after %d s", i, d, second)
			}
		}
		if second == 10 {
			half = finished.Load()
		}
	}
	if n := finished.Load(); half == 0 || n < half*3/2 {
		t.Errorf("%d messages finished in 10 s, %d in 20 s", half, n)
	}
	_ = tr.Close()
	time.Sleep(time.Second) // for the handlers
}

// Looking for circles path by path takes for ever in a graph like this one, and
// the whole broker waits.
func TestManyHoldsAreSearchedQuickly(t *testing.T) {
	t.Parallel()
	const n = 40
	tr := newTransport(t, Config{QueueSize: 1})
	inFlight := make([]*message.Message, n)
	for i := range n {
		name := strconv.Itoa(i)
		ch := subscribe(t, tr, sub(name, name, "all"))
		publish(t, tr, name, name)
		inFlight[i] = receive(t, ch)
	}
	for _, msg := range inFlight {
		publishFrom(t, tr, msg, "all", "event")
	}
	checkInvariants(t, tr.broker)
	holds := 0
	for _, q := range tr.broker.order {
		holds += len(q.holds)
	}
	if want := n * (n - 1) / 2; holds != want {
		t.Errorf("%d holds; want %d, all that close no circle", holds, want)
	}
}

package memory

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

func TestPublisherFasterThanItsHandlersIsHeldBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size, total = 5, 200
		tr := newTransport(t, Config{QueueSize: size})
		ch := subscribe(t, tr, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 3})
		var published atomic.Int64
		go func() {
			for _, id := range numbers(1, total) {
				publish(t, tr, "a", id)
				published.Add(1)
			}
		}()
		for handled := range total {
			synctest.Wait()
			if ahead := int(published.Load()) - handled; ahead > size {
				t.Fatalf("the publisher is %d messages ahead", ahead)
			}
			if d := depth(t, tr, "s"); d.Ready+d.InFlight > size {
				t.Fatalf("the queue holds %+v; its size is %d", d, size)
			}
			receive(t, ch).Ack()
		}
		wantDepth(t, tr, "s", transports.Depth{})
	})
}

func TestBlockedPublishersAreServedInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 1})
		ch := subscribe(t, tr, sub("s", "a"))
		publish(t, tr, "a", "0")
		var blocked []<-chan error
		for _, id := range numbers(1, 5) {
			blocked = append(blocked, publishLater(t.Context(), tr, "a", id))
		}
		for i, done := range blocked {
			for _, later := range blocked[i:] {
				pending(t, later)
			}
			ackIDs(t, ch, fmt.Sprint(i))
			if err := result(t, done); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestBlockedPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 1})
		empty := subscribe(t, tr, sub("first", "both"))
		full := subscribe(t, tr, sub("full", "both", "full"))
		last := subscribe(t, tr, sub("last", "both"))
		publish(t, tr, "full", "1")

		ctx, cancel := context.WithCancelCause(t.Context())
		cancelled := publishLater(ctx, tr, "both", "2")
		deadline, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		expired := publishLater(deadline, tr, "both", "3")
		behind := publishLater(t.Context(), tr, "both", "4")

		pending(t, cancelled)
		cancel(errSample)
		if err := result(t, cancelled); !errors.Is(err, errSample) {
			t.Errorf("got %v; want the context's cause", err)
		}
		pending(t, expired)
		time.Sleep(time.Second)
		if err := result(t, expired); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v; want the deadline", err)
		}
		receiveNothing(t, empty)
		receiveNothing(t, last)
		pending(t, behind)

		ackIDs(t, full, "1", "4")
		ackIDs(t, empty, "4")
		ackIDs(t, last, "4")
		if err := result(t, behind); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"first", "full", "last"} {
			wantDepth(t, tr, name, transports.Depth{})
		}
	})
}

func TestBlockedPublishEndsWithClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, Config{QueueSize: 1})
		closing, other := connect(t, b), connect(t, b)
		declare(t, other, sub("s", "a"))
		publish(t, other, "a", "1")
		ended := publishLater(t.Context(), closing, "a", "2")
		goesOn := publishLater(t.Context(), other, "a", "3")
		pending(t, ended)
		if err := closing.Close(); err != nil {
			t.Fatal(err)
		}
		if err := result(t, ended); !errors.Is(err, transports.ErrClosed) {
			t.Errorf("got %v; want ErrClosed", err)
		}
		pending(t, goesOn)
		ackIDs(t, subscribe(t, other, sub("s", "a")), "1", "3")
		if err := result(t, goesOn); err != nil {
			t.Error(err)
		}
	})
}

// Publish's result is the truth also when the context ends at the very moment
// that room is made.
func TestPublishTellsTheTruthWhenRoomAndEndCoincide(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{QueueSize: 1})
	ch := subscribe(t, tr, sub("s", "a"))
	var ended int
	for range 500 {
		publish(t, tr, "a", "1")
		msg := receive(t, ch)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tr.Publish("a", newMessage(ctx, "2")) }()
		go cancel()
		msg.Ack()
		if err := <-done; err == nil {
			ackIDs(t, ch, "2")
		} else {
			ended++
		}
		publish(t, tr, "a", "3") // the next of all, or 2 was published after all
		ackIDs(t, ch, "3")
	}
	t.Logf("%d of 500 ended", ended)
}

func TestPublishToSeveralFullQueuesWaitsForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 1})
		one := subscribe(t, tr, sub("one", "both", "one"))
		two := subscribe(t, tr, sub("two", "both", "two"))
		publish(t, tr, "one", "1")
		publish(t, tr, "two", "2")
		both := publishLater(t.Context(), tr, "both", "3")
		alone := publishLater(t.Context(), tr, "one", "4")

		// While the first waits for two, one is free for the second.
		ackIDs(t, one, "1")
		pending(t, both)
		if err := result(t, alone); err != nil {
			t.Error(err)
		}
		ackIDs(t, one, "4")
		receiveNothing(t, one)

		ackIDs(t, two, "2", "3")
		ackIDs(t, one, "3")
		if err := result(t, both); err != nil {
			t.Error(err)
		}
	})
}

func TestBatchIsPublishedAsFarAsItGets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 2})
		ch := subscribe(t, tr, sub("s", "a"))
		ctx, cancel := context.WithCancelCause(t.Context())
		var batch []*message.Message
		for _, id := range numbers(1, 5) {
			batch = append(batch, newMessage(ctx, id))
		}
		done := make(chan error, 1)
		go func() { done <- tr.Publish("a", batch...) }()
		pending(t, done)
		ackIDs(t, ch, "1")
		pending(t, done)
		cancel(errSample)
		failed, ok := errors.AsType[*transports.PublishError](result(t, done))
		if !ok || len(failed.Failures) != 2 || failed.Failures[0].Index != 3 || failed.Failures[1].Index != 4 {
			t.Errorf("got %v; want that 3 and 4 failed", failed)
		}
		if !errors.Is(failed, errSample) {
			t.Errorf("got %v; want the context's cause", failed)
		}
		ackIDs(t, ch, "2", "3")
		wantDepth(t, tr, "s", transports.Depth{})
	})
}

func TestDelayedMessagesTakeRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 2})
		ch := subscribe(t, tr, sub("s", "a"))
		publishDelayed(t, tr, "1", time.Hour)
		publishDelayed(t, tr, "2", time.Hour)
		blocked := publishLater(t.Context(), tr, "a", "3")
		time.Sleep(59 * time.Minute)
		pending(t, blocked)
		time.Sleep(time.Minute)
		ackIDs(t, ch, "1", "2", "3")
		if err := result(t, blocked); err != nil {
			t.Error(err)
		}
	})
}

func TestBlockedDelayedPublishKeepsItsDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 1})
		ch := subscribe(t, tr, sub("s", "a"))
		publish(t, tr, "a", "1")
		done := make(chan error, 1)
		go func() {
			done <- tr.PublishBatch(t.Context(), []transports.Outgoing{{Topic: "a", Message: newMessage(t.Context(), "2"), Delay: time.Hour}})
		}()
		pending(t, done)
		ackIDs(t, ch, "1")
		if err := result(t, done); err != nil {
			t.Error(err)
		}
		wantDepth(t, tr, "s", transports.Depth{Delayed: 1})
		time.Sleep(time.Hour)
		receiveIDs(t, ch, "2")
	})
}

func TestRemovalLetsPublishersGoOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 1})
		declare(t, tr, sub("one", "all", "some"))
		declare(t, tr, sub("two", "all", "some"))
		three := subscribe(t, tr, sub("three", "all"))
		publish(t, tr, "some", "1")
		all := publishLater(t.Context(), tr, "all", "2")
		some := publishLater(t.Context(), tr, "some", "3")
		remove := func(name string) {
			if err := tr.RemoveSubscription(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		remove("one")
		pending(t, all)
		pending(t, some)
		receiveNothing(t, three)
		remove("two")
		receiveIDs(t, three, "2")
		for _, done := range []<-chan error{all, some} {
			if err := result(t, done); err != nil {
				t.Error(err)
			}
		}
	})
}

// Two queues that are kept full by publishers of their own are never free at the
// same time. A publisher to both has its turn all the same.
func TestPublisherToSeveralQueuesIsNotStarved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const own = 3
		tr := newTransport(t, Config{QueueSize: 2})
		handle := func(name string, topics ...string) {
			ch := subscribe(t, tr, sub(name, topics...))
			go func() {
				for msg := range ch {
					time.Sleep(time.Millisecond)
					if d, err := tr.Depth(context.Background(), name); err == nil && d.Ready+d.InFlight > 2+own+1 {
						t.Errorf("%s holds %+v", name, d)
					}
					msg.Ack()
				}
			}()
		}
		handle("one", "both", "one")
		handle("two", "both", "two")
		var both atomic.Int64
		loop := func(topic string, count *atomic.Int64) {
			for tr.Publish(topic, newMessage(context.Background(), "1")) == nil {
				count.Add(1)
			}
		}
		for range own {
			go loop("one", new(atomic.Int64))
			time.Sleep(100 * time.Microsecond)
			go loop("two", new(atomic.Int64))
		}
		go loop("both", &both)
		time.Sleep(time.Second)
		if n := both.Load(); n < 50 {
			t.Errorf("published to both %d times while 1000 were handled", n)
		}
		_ = tr.Close()
		time.Sleep(time.Second) // for the handlers
	})
}

package memory

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitIdleReturnsWhenNothingIsLeftToDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{})
		if err := tr.broker.WaitIdle(t.Context()); err != nil {
			t.Errorf("an empty broker: %v", err)
		}
		ch := subscribe(t, tr, sub("s", "a"))
		publish(t, tr, "a", "1")
		publishDelayed(t, tr, "2", time.Minute)
		idle := make(chan error, 2)
		for range cap(idle) {
			go func() { idle <- tr.broker.WaitIdle(t.Context()) }()
		}
		pending(t, idle)
		ackIDs(t, ch, "1")
		pending(t, idle) // one is delayed
		time.Sleep(time.Minute)
		msg := receiveIDs(t, ch, "2")[0]
		pending(t, idle) // and in flight now
		if err := tr.Poison(t.Context(), "s", msg); err != nil {
			t.Fatal(err)
		}
		msg.Ack()
		for range cap(idle) {
			if err := <-idle; err != nil {
				t.Error(err)
			}
		}
	})
}

// A message that a publisher waits to publish follows the last one at once.
func TestWaitIdleWaitsForWaitingPublishers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 1})
		ch := subscribe(t, tr, sub("s", "a", "both"))
		declare(t, tr, sub("removed", "both"))
		publish(t, tr, "both", "1")
		blocked := publishLater(t.Context(), tr, "a", "2")
		idle := make(chan error, 1)
		go func() { idle <- tr.broker.WaitIdle(t.Context()) }()
		pending(t, idle)
		if err := tr.RemoveSubscription(t.Context(), "removed"); err != nil {
			t.Fatal(err)
		}
		ackIDs(t, ch, "1")
		pending(t, idle)
		ackIDs(t, ch, "2")
		for _, done := range []<-chan error{idle, blocked} {
			if err := result(t, done); err != nil {
				t.Error(err)
			}
		}

		other := subscribe(t, tr, sub("other", "both"))
		publish(t, tr, "a", "3")
		blocked = publishLater(t.Context(), tr, "both", "4")
		go func() { idle <- tr.broker.WaitIdle(t.Context()) }()
		pending(t, idle)
		if err := tr.RemoveSubscription(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		pending(t, idle)
		ackIDs(t, other, "4")
		for _, done := range []<-chan error{idle, blocked} {
			if err := result(t, done); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestWaitIdleEndsWithItsContextAndWithTheSubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{})
		subscribe(t, tr, sub("s", "a"))
		publish(t, tr, "a", "1", "2")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("no patience"))
		defer cancel()
		if err := tr.broker.WaitIdle(ctx); err == nil || err.Error() != "no patience" {
			t.Errorf("error is %v, want the cause", err)
		}
		if err := tr.RemoveSubscription(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		if err := tr.broker.WaitIdle(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

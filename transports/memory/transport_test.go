package memory

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

var errSample = errors.New("a sample error")

type contextKey struct{}

func TestEndOfContextStopsIntakeOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{})
		ctx, stop := context.WithCancel(context.WithValue(t.Context(), contextKey{}, "value"))
		ch := subscribeContext(ctx, t, tr, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 3})
		publish(t, tr, "a", numbers(1, 5)...)
		msgs := receiveIDs(t, ch, "1", "2") // 3 is on offer
		stop()
		receiveNothing(t, ch)
		wantDepth(t, tr, "s", transports.Depth{Ready: 3, InFlight: 2})
		delivery := msgs[0].Context()
		if err := delivery.Err(); err != nil {
			t.Errorf("the message's context ended with that of Subscribe: %v", err)
		}
		if delivery.Value(contextKey{}) != "value" {
			t.Error("the message's context lacks the values of that of Subscribe")
		}

		msgs[0].Ack()
		receiveNothing(t, ch)
		msgs[1].Nack()
		wantClosed(t, ch)
		synctest.Wait()
		if delivery.Err() == nil {
			t.Error("the message's context goes on after the channel was closed")
		}
		ackIDs(t, subscribe(t, tr, sub("s", "a")), "2", "3", "4", "5")
		wantDepth(t, tr, "s", transports.Depth{})
	})
}

func TestCloseEndsDeliveries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, Config{})
		closing, other := connect(t, b), connect(t, b)
		ch := subscribe(t, closing, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 2})
		publish(t, other, "a", "1", "2", "3")
		msgs := receiveIDs(t, ch, "1", "2")
		ctx := msgs[0].Context()
		if err := closing.Close(); err != nil {
			t.Fatal(err)
		}
		if got := context.Cause(ctx); !errors.Is(got, transports.ErrClosed) {
			t.Errorf("the message's context ended with %v; want ErrClosed", got)
		}
		wantClosed(t, ch)

		msgs[0].Ack() // too late
		wantDepth(t, other, "s", transports.Depth{Ready: 3})
		ackIDs(t, subscribe(t, other, sub("s", "a")), "1", "2", "3")
	})
}

func TestAcknowledgementBeforeCloseCounts(t *testing.T) {
	t.Parallel()
	b := newBroker(t, Config{})
	other := connect(t, b)
	declare(t, other, sub("s", "a"))
	for range 200 { // both ends are seen at once in some of the rounds
		closing := connect(t, b)
		publish(t, other, "a", "1")
		msg := receive(t, subscribe(t, closing, sub("s", "a")))
		msg.Ack()
		_ = closing.Close()
		if d := depth(t, other, "s"); d != (transports.Depth{}) {
			t.Fatalf("the acknowledged message is back: %+v", d)
		}
	}
}

// Close ends deliveries first and intake a moment later. A message that goes back
// in between must not be delivered by the same consumer again.
func TestClosingConsumerDoesNotTakeBackItsOwn(t *testing.T) {
	t.Parallel()
	b := newBroker(t, Config{})
	publisher := connect(t, b)
	declare(t, publisher, sub("s", "a"))
	publish(t, publisher, "a", numbers(1, 50)...)
	for range 200 {
		closing := connect(t, b)
		ch := subscribe(t, closing, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 4})
		seen := map[string]bool{}
		for range 4 {
			seen[receive(t, ch).UUID] = true
		}
		go func() { _ = closing.Close() }()
		for msg := range ch {
			if seen[msg.UUID] {
				t.Fatalf("received %s again while closing", msg.UUID)
			}
			seen[msg.UUID] = true
		}
	}
}

func TestCloseTwiceAndConcurrently(t *testing.T) {
	t.Parallel()
	b := newBroker(t, Config{})
	tr := b.Connect()
	publish(t, tr, "a", "1")
	var channels []<-chan *message.Message
	for range 3 {
		channels = append(channels, subscribe(t, tr, wide("s", "a")))
	}
	publish(t, tr, "a", numbers(1, 20)...)
	var closing sync.WaitGroup
	for range 8 {
		closing.Go(func() {
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
			// Whoever's Close returns may rely on everything having gone back.
			other := b.Connect()
			if d := depth(t, other, "s"); d.Ready != 20 {
				t.Errorf("after Close the depth is %+v", d)
			}
			_ = other.Close()
		})
	}
	closing.Wait()
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	for _, ch := range channels {
		wantClosed(t, ch)
	}
}

func TestUseAfterClose(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	declare(t, tr, sub("s", "a"))
	ctx := t.Context()
	msg := newMessage(ctx, "1")
	_ = tr.Close()
	calls := map[string]func() error{
		"Publish":      func() error { return tr.Publish("a", msg) },
		"Publish many": func() error { return tr.Publish("a", msg, msg) },
		"PublishBatch": func() error {
			return tr.PublishBatch(ctx, []transports.Outgoing{{Topic: "a", Message: msg}})
		},
		"Subscribe": func() error { _, err := tr.Subscribe(ctx, sub("s", "a")); return err },
		"Requeue":   func() error { return tr.Requeue(ctx, "s", msg, 0) },
		"Poison":    func() error { return tr.Poison(ctx, "s", msg) },
		"Poisoned": func() (last error) {
			for _, err := range tr.Poisoned(ctx, "s", transports.PoisonPage{}) {
				last = err
			}
			return last
		},
		"RequeuePoisoned":    func() error { _, err := tr.RequeuePoisoned(ctx, "s"); return err },
		"DiscardPoisoned":    func() error { _, err := tr.DiscardPoisoned(ctx, "s"); return err },
		"RemoveSubscription": func() error { return tr.RemoveSubscription(ctx, "s") },
		"Ping":               func() error { return tr.Ping(ctx) },
		"Depth":              func() error { _, err := tr.Depth(ctx, "s"); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, transports.ErrClosed) {
			t.Errorf("%s after Close: %v; want ErrClosed", name, err)
		}
	}
}

func TestUnknownSubscription(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	ctx := t.Context()
	msg := newMessage(ctx, "1")
	calls := map[string]func() error{
		"Requeue": func() error { return tr.Requeue(ctx, "s", msg, 0) },
		"Poison":  func() error { return tr.Poison(ctx, "s", msg) },
		"Poisoned": func() (last error) {
			for _, err := range tr.Poisoned(ctx, "s", transports.PoisonPage{}) {
				last = err
			}
			return last
		},
		"RequeuePoisoned": func() error { _, err := tr.RequeuePoisoned(ctx, "s"); return err },
		"DiscardPoisoned": func() error { _, err := tr.DiscardPoisoned(ctx, "s"); return err },
		"Depth":           func() error { _, err := tr.Depth(ctx, "s"); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, transports.ErrNoSubscription) {
			t.Errorf("%s: %v; want ErrNoSubscription", name, err)
		}
	}
	if err := tr.RemoveSubscription(ctx, "s"); err != nil {
		t.Errorf("RemoveSubscription: %v; want nil", err)
	}
}

func TestPingFollowsContextAndClose(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	if err := tr.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errSample)
	if err := tr.Ping(ctx); !errors.Is(err, errSample) {
		t.Errorf("ping with an ended context: %v", err)
	}
}

func TestCloseAgainstEverythingElse(t *testing.T) {
	t.Parallel()
	for range 50 {
		b := newBroker(t, Config{QueueSize: 2})
		tr := b.Connect()
		ctx := t.Context()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					if err := tr.Publish("a", newMessage(ctx, "1")); err != nil {
						if !errors.Is(err, transports.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
			wg.Go(func() {
				for {
					ctx, stop := context.WithCancel(ctx)
					ch, err := tr.Subscribe(ctx, sub("s", "a"))
					if err != nil {
						stop()
						if !errors.Is(err, transports.ErrClosed) {
							t.Error(err)
						}
						return
					}
					for range 3 {
						if msg, ok := <-ch; ok {
							msg.Ack()
						}
					}
					stop()
				}
			})
		}
		receive(t, subscribe(t, tr, sub("s", "a")))
		_ = tr.Close()
		wg.Wait()
		checkInvariants(t, b)
	}
}

// Close may come between the first look that Subscribe takes and its work.
func TestSubscribeDuringCloseAddsNoConsumer(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, Config{})
	tr.isClosed = true
	if _, err := tr.Subscribe(t.Context(), sub("s", "a")); !errors.Is(err, transports.ErrClosed) {
		t.Errorf("got %v; want ErrClosed", err)
	}
}

func TestCloseStopsTimersOfItsOwnBroker(t *testing.T) {
	t.Parallel()
	tr, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	declare(t, tr, sub("s", "a"))
	if err := tr.Requeue(t.Context(), "s", newMessage(t.Context(), "1"), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	_ = tr.Close()
	if tr.broker.queues["s"].timer.Stop() {
		t.Error("a timer keeps the broker in memory for a day")
	}
}

func TestReceiverThatStopsReceivingBlocksNoClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, Config{})
		tr := connect(t, b)
		var channels []<-chan *message.Message
		for range 3 {
			channels = append(channels, subscribe(t, tr, wide("s", "a")))
		}
		publish(t, tr, "a", numbers(1, 10)...)
		synctest.Wait()
		_ = tr.Close()
		for _, ch := range channels {
			wantClosed(t, ch)
		}
		wantDepth(t, connect(t, b), "s", transports.Depth{Ready: 10})
	})
}

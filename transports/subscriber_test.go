package transports_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

const topic = "order.created"

// newSubscriber returns a subscriber of the group "shop" on a new memory transport.
func newSubscriber(t *testing.T, cfg transports.SubscriberConfig) (*memory.Transport, *transports.Subscriber) {
	t.Helper()
	tr, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Group = "shop"
	s, err := transports.AsSubscriber(tr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), tr.Close()); err != nil {
			t.Error(err)
		}
	})
	return tr, s
}

func subscribe(t *testing.T, s *transports.Subscriber) <-chan *message.Message {
	t.Helper()
	ch, err := s.Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func publish(t *testing.T, p message.Publisher, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := p.Publish(topic, message.NewMessage(id, nil)); err != nil {
			t.Fatal(err)
		}
	}
}

// receive takes the next message. For use in a bubble, where it is there or never.
func receive(t *testing.T, ch <-chan *message.Message, id string) *message.Message {
	t.Helper()
	synctest.Wait()
	select {
	case msg, ok := <-ch:
		if !ok || msg.UUID != id {
			t.Fatalf("received %v, open %t; want %s", msg, ok, id)
		}
		return msg
	default:
		t.Fatalf("nothing to receive; want %s", id)
		return nil
	}
}

// isClosed reports whether ch is closed, and wants no message in it.
func isClosed(t *testing.T, ch <-chan *message.Message) bool {
	t.Helper()
	synctest.Wait()
	select {
	case msg, ok := <-ch:
		if ok {
			t.Fatalf("received %s", msg.UUID)
		}
		return true
	default:
		return false
	}
}

func TestSubscriberConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := transports.AsSubscriber(nil, transports.SubscriberConfig{Concurrency: -1, DrainTimeout: -time.Second})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"Group is empty", "Concurrency is -1", "DrainTimeout is -1s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in:\n%v", want, err)
		}
	}
}

func TestSubscriberDeliversOneAfterTheOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, s := newSubscriber(t, transports.SubscriberConfig{})
		ch := subscribe(t, s)
		publish(t, tr, "1", "2")
		msg := receive(t, ch, "1")
		if isClosed(t, ch) || msg.Context().Err() != nil {
			t.Fatal("ended early")
		}
		msg.Nack()
		synctest.Wait()
		if msg.Context().Err() == nil {
			t.Error("the message's context goes on after Nack")
		}
		msg = receive(t, ch, "1")
		msg.Ack()
		receive(t, ch, "2").Ack()
		if msg.Context().Err() == nil {
			t.Error("the message's context goes on after Ack")
		}
	})
}

func TestSubscriberConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, s := newSubscriber(t, transports.SubscriberConfig{Concurrency: 2})
		ch := subscribe(t, s)
		publish(t, tr, "1", "2", "3")
		receive(t, ch, "1")
		msg := receive(t, ch, "2")
		if isClosed(t, ch) {
			t.Fatal("closed")
		}
		msg.Ack()
		receive(t, ch, "3")
	})
}

func TestSubscriberNamesItsSubscriptions(t *testing.T) {
	t.Parallel()
	tr, s := newSubscriber(t, transports.SubscriberConfig{})
	if err := s.SubscribeInitialize(topic); err != nil {
		t.Fatal(err)
	}
	publish(t, tr, "1")
	d, err := tr.Depth(t.Context(), "shop.order.created")
	if err != nil || d.Ready != 1 {
		t.Errorf("got %+v, %v; want one ready message", d, err)
	}
}

func TestEphemeralSubscribersEachGetEveryMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, s := newSubscriber(t, transports.SubscriberConfig{Ephemeral: true})
		if err := s.SubscribeInitialize(topic); err != nil {
			t.Fatal(err)
		}
		one, two := subscribe(t, s), subscribe(t, s)
		publish(t, tr, "1")
		receive(t, one, "1").Ack()
		receive(t, two, "1").Ack()
	})
}

func TestEndOfSubscribersContextLetsReceiversSettle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, s := newSubscriber(t, transports.SubscriberConfig{Concurrency: 3})
		ctx, cancel := context.WithCancel(t.Context())
		ch, err := s.Subscribe(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, tr, "1", "2", "3")
		msg := receive(t, ch, "1")
		synctest.Wait() // 2 is on offer
		cancel()
		if isClosed(t, ch) || msg.Context().Err() != nil {
			t.Fatal("ended before the message in flight was settled")
		}
		msg.Ack()
		if !isClosed(t, ch) {
			t.Fatal("not closed")
		}
		ch = subscribe(t, s)
		receive(t, ch, "2")
		receive(t, ch, "3")
	})
}

func TestCloseOfSubscriberNacksWhatIsUnsettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, s := newSubscriber(t, transports.SubscriberConfig{Concurrency: 2})
		ch := subscribe(t, s)
		publish(t, tr, "1", "2", "3")
		msg := receive(t, ch, "1") // 2 is on offer
		var closing sync.WaitGroup
		for range 4 {
			closing.Go(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				select {
				case <-msg.Nacked():
				default:
					t.Error("not nacked")
				}
			})
		}
		closing.Wait()
		if !isClosed(t, ch) {
			t.Error("the channel is open after Close")
		}
		if cause := context.Cause(msg.Context()); !errors.Is(cause, transports.ErrClosed) {
			t.Errorf("the message's context ended with %v; want ErrClosed", cause)
		}
		if _, err := s.Subscribe(t.Context(), topic); !errors.Is(err, transports.ErrClosed) {
			t.Errorf("Subscribe after Close: %v; want ErrClosed", err)
		}
		if err := s.SubscribeInitialize(topic); !errors.Is(err, transports.ErrClosed) {
			t.Errorf("SubscribeInitialize after Close: %v; want ErrClosed", err)
		}
		d, err := tr.Depth(t.Context(), "shop."+topic) // the transport is open
		if err != nil || d.Ready != 3 {
			t.Errorf("got %+v, %v; want three ready messages", d, err)
		}
	})
}

func TestCloseOfSubscriberDrains(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handling, took time.Duration
		acked          bool
	}{
		"quick handler": {handling: time.Second, took: time.Second, acked: true},
		"slow handler":  {handling: time.Hour, took: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tr, s := newSubscriber(t, transports.SubscriberConfig{DrainTimeout: time.Minute})
				ch := subscribe(t, s)
				publish(t, tr, "1", "2")
				msg := receive(t, ch, "1")
				acked := make(chan bool, 1)
				time.AfterFunc(c.handling, func() { acked <- msg.Ack() })
				start := time.Now()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took != c.took {
					t.Errorf("Close took %s; want %s", took, c.took)
				}
				if !isClosed(t, ch) {
					t.Error("the channel is open after Close")
				}
				if got := <-acked; got != c.acked {
					t.Errorf("Ack returned %t; want %t", got, c.acked)
				}
			})
		})
	}
}

func TestSubscriberEndsWithItsTransport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, s := newSubscriber(t, transports.SubscriberConfig{})
		ch := subscribe(t, s)
		publish(t, tr, "1")
		msg := receive(t, ch, "1")
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		if !isClosed(t, ch) || msg.Context().Err() == nil {
			t.Error("goes on")
		}
		if _, err := s.Subscribe(t.Context(), topic); !errors.Is(err, transports.ErrClosed) {
			t.Errorf("Subscribe on a closed transport: %v", err)
		}
	})
}

func TestSubscriberCloseAgainstSubscribe(t *testing.T) {
	t.Parallel()
	for range 50 {
		tr, s := newSubscriber(t, transports.SubscriberConfig{Concurrency: 2})
		if err := s.SubscribeInitialize(topic); err != nil {
			t.Fatal(err)
		}
		publish(t, tr, "1")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				ch, err := s.Subscribe(t.Context(), topic)
				if err != nil {
					if !errors.Is(err, transports.ErrClosed) {
						t.Error(err)
					}
					return
				}
				for msg := range ch {
					msg.Nack()
				}
			})
			wg.Go(func() { _ = s.Close() })
		}
		wg.Wait()
	}
}

func TestPublisherLeavesItsTransportOpen(t *testing.T) {
	t.Parallel()
	tr, s := newSubscriber(t, transports.SubscriberConfig{})
	if err := s.SubscribeInitialize(topic); err != nil {
		t.Fatal(err)
	}
	p := transports.AsPublisher(tr)
	publish(t, p, "1")
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := p.Publish(topic, message.NewMessage("2", nil)); !errors.Is(err, transports.ErrClosed) {
		t.Errorf("Publish after Close: %v; want ErrClosed", err)
	}
	publish(t, tr, "3")
	if d, err := tr.Depth(t.Context(), "shop."+topic); err != nil || d.Ready != 2 {
		t.Errorf("got %+v, %v; want two ready messages", d, err)
	}
}

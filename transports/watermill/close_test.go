package watermill

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

func TestCloseEndsSubscriptionsThenSubscriberThenPublisher(t *testing.T) {
	t.Parallel()
	var order []string
	f := &fakeSubscriber{}
	f.onClose = func() error {
		if f.calls[0].ctx.Err() != nil {
			order = append(order, "subscription")
		}
		order = append(order, "subscriber")
		return errSample
	}
	p := &fakePublisher{onClose: func() error {
		order = append(order, "publisher")
		return errors.New("another")
	}}
	tr, err := New(p, f, Config{})
	if err != nil {
		t.Fatal(err)
	}
	subscribe(t.Context(), t, tr, sub("s", "a"))
	first, again := tr.Close(), tr.Close()
	if !errors.Is(first, errSample) || !strings.Contains(first.Error(), "another") || !errors.Is(again, errSample) {
		t.Errorf("Close returned %v, then %v; want both errors", first, again)
	}
	if want := []string{"subscription", "subscriber", "publisher"}; !slices.Equal(order, want) {
		t.Errorf("closed %q; want %q", order, want)
	}
}

func TestCloseLeavesOpenWhatIsShared(t *testing.T) {
	t.Parallel()
	p, f := &fakePublisher{}, &fakeSubscriber{}
	tr := newTransport(t, p, f, Config{LeaveOpen: true})
	subscribe(t.Context(), t, tr, sub("s", "a"))
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if p.closed != 0 || f.closed != 0 {
		t.Error("it is closed")
	}
	if f.on(t, "a").ctx.Err() == nil {
		t.Error("the subscription goes on")
	}
}

// pubSub is one object, as a GoChannel is.
type pubSub struct {
	*fakeSubscriber
	published int
}

func (p *pubSub) Publish(string, ...*message.Message) error { p.published++; return nil }

// uncomparable would make a comparison of interfaces panic.
type uncomparable struct {
	*pubSub
	_ []string
}

func TestOneObjectIsClosedOnce(t *testing.T) {
	t.Parallel()
	both := &pubSub{fakeSubscriber: &fakeSubscriber{}}
	if err := newTransport(t, both, both, Config{}).Close(); err != nil {
		t.Error(err)
	}
	if got := both.closes(); got != 1 {
		t.Errorf("it was closed %d times", got)
	}
	unknowable := uncomparable{pubSub: &pubSub{fakeSubscriber: &fakeSubscriber{}}}
	if err := newTransport(t, unknowable, unknowable, Config{}).Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		hang := func() error {
			<-block
			return nil
		}
		p := &fakePublisher{onClose: hang, publish: func(string, ...*message.Message) error { return hang() }}
		tr, err := New(p, &fakeSubscriber{onClose: hang}, Config{CloseTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = tr.Publish("a", message.NewMessageWithContext(ctx, "1", nil))
		start := time.Now()
		err = tr.Close()
		for _, want := range []string{"the subscriber's Close has not ended within 1m0s", "the publisher's Close has", "a call of Publish or Subscribe has"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("want %q in: %v", want, err)
			}
		}
		if took := time.Since(start); took > 4*time.Minute {
			t.Errorf("it took %s", took)
		}
		close(block)
	})
}

func TestSubscriberOfASubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var made []*fakeSubscriber
		var asked []transports.Subscription
		tr := newTransport(t, nil, nil, Config{Subscriber: func(s transports.Subscription) (message.Subscriber, error) {
			f := &fakeSubscriber{}
			f.onClose = func() error {
				if f.calls[0].ctx.Err() != nil {
					t.Error("the context ends before Close: a subscriber may roll back what was acknowledged")
				}
				f.calls[0].end()
				return errSample
			}
			made, asked = append(made, f), append(asked, s)
			return f, nil
		}})
		first := sub("one", "a")
		first.Concurrency = 7
		ctx, stop := context.WithCancel(t.Context())
		ch := subscribe(ctx, t, tr, first)
		for _, name := range []string{"one", "two"} {
			subscribe(t.Context(), t, tr, sub(name, "a")) // each name, each consumer has its own
		}
		if len(made) != 3 || asked[0].Name != "one" || asked[0].Concurrency != 7 || asked[2].Name != "two" {
			t.Errorf("asked for %+v", asked)
		}
		start := time.Now()
		stop()
		for range ch {
		}
		if made[0].closes() != 1 || made[1].closes() != 0 || made[0].calls[0].ctx.Err() == nil {
			t.Error("the consumer's subscriber is to be closed with it, and no other")
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("its end took %s, with a subscriber that has returned from Close", took)
		}
		if err := tr.Close(); !errors.Is(err, errSample) {
			t.Errorf("Close: %v; want the subscribers' error", err)
		}
		if made[1].closes() != 1 || made[2].closes() != 1 {
			t.Error("Close leaves subscribers open")
		}
		tr.closeAll = func() error { return nil } // for the clean-up, which wants no error
	})
}

func TestSubscribeThatFails(t *testing.T) {
	t.Parallel()
	fails := func(_ context.Context, topic string) error {
		if topic == "b" {
			return errSample
		}
		return nil
	}
	f := &fakeSubscriber{subscribe: fails}
	tr := newTransport(t, nil, f, Config{})
	for range 2 { // it has left nothing behind that would refuse it
		_, err := tr.Subscribe(t.Context(), sub("s", "a", "b"))
		if !errors.Is(err, errSample) || !strings.Contains(err.Error(), `topic "b"`) {
			t.Fatalf("got %v; want the subscriber's error with its topic", err)
		}
	}
	if f.on(t, "a").ctx.Err() == nil {
		t.Error("the other topic's subscription goes on")
	}

	for _, c := range []struct {
		make func() (message.Subscriber, error)
		want string
	}{
		{func() (message.Subscriber, error) { return nil, errSample }, "sample"},
		{func() (message.Subscriber, error) { return nil, nil }, "returned none"},
		{func() (message.Subscriber, error) { panic("out of ink") }, "panic: out of ink"},
	} {
		tr := newTransport(t, nil, nil, Config{Subscriber: func(transports.Subscription) (message.Subscriber, error) { return c.make() }})
		if _, err := tr.Subscribe(t.Context(), sub("s", "a")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v; want %q", err, c.want)
		}
	}
}

func TestSubscribeWithAnEndedContextAsksNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSubscriber{}
		tr := newTransport(t, nil, f, Config{})
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errSample)
		if _, err := tr.Subscribe(ctx, sub("s", "a")); !errors.Is(err, errSample) {
			t.Errorf("got %v; want its cause", err)
		}
		synctest.Wait()
		if len(f.topics()) > 0 {
			t.Error("the subscriber is asked all the same")
		}
	})
}

// A broker that is away may hold Watermill's Subscribe up.
func TestSubscribeEndsWithItsContextAndWithClose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(tr *Transport, cancel context.CancelCauseFunc)
		want error
	}{
		{"context", func(_ *Transport, cancel context.CancelCauseFunc) { cancel(errSample) }, errSample},
		{"Close", func(tr *Transport, _ context.CancelCauseFunc) { _ = tr.Close() }, transports.ErrClosed},
	} {
		for _, heeds := range []bool{true, false} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					blocked := make(chan struct{})
					f := &fakeSubscriber{subscribe: func(ctx context.Context, _ string) error {
						if heeds {
							<-ctx.Done()
							return ctx.Err()
						}
						<-blocked
						return nil
					}}
					tr := newTransport(t, nil, f, Config{})
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					done := make(chan error, 1)
					go func() {
						_, err := tr.Subscribe(ctx, sub("s", "a"))
						done <- err
					}()
					synctest.Wait()
					go c.end(tr, cancel)
					synctest.Wait()
					if err := <-done; !errors.Is(err, c.want) {
						t.Errorf("got %v; want %v", err, c.want)
					}
					close(blocked)
					time.Sleep(time.Second)
					if !heeds && f.on(t, "a").ctx.Err() == nil {
						t.Error("what was left behind has become a subscription that nobody has")
					}
				})
			})
		}
	}
}

func TestNothingIsAddedAfterClose(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, nil, &fakeSubscriber{}, Config{})
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	// As by a call of Subscribe that was under way.
	if _, err := tr.add(t.Context(), sub("s", "a"), []string{"a"}); !errors.Is(err, transports.ErrClosed) {
		t.Errorf("got %v; want ErrClosed: Close has waited for all consumers", err)
	}
}

func TestCloseAgainstEverything(t *testing.T) {
	t.Parallel()
	for range 20 {
		tr := newTransport(t, &fakePublisher{}, &fakeSubscriber{}, Config{Sharing: FanOut})
		var running sync.WaitGroup
		for _, name := range []string{"1", "2", "3", "4"} {
			running.Go(func() {
				ch, err := tr.Subscribe(t.Context(), sub(name, "a"))
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
			running.Go(func() {
				if err := tr.Publish("a", message.NewMessage("1", nil)); err != nil && !errors.Is(err, transports.ErrClosed) {
					t.Error(err)
				}
			})
			running.Go(func() {
				if err := tr.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		running.Wait()
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := New(nil, nil, Config{Sharing: 7, MaxConsumers: -1, MaxMessageBytes: -1, CloseTimeout: -1})
	for _, want := range []string{"neither a publisher nor a subscriber", "Sharing is 7", "MaxConsumers is -1", "MaxMessageBytes is -1", "CloseTimeout is -1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in:\n%v", want, err)
		}
	}
	_, err = New(nil, &fakeSubscriber{}, Config{
		MaxConsumers: 2,
		Subscriber:   func(transports.Subscription) (message.Subscriber, error) { return nil, nil },
	})
	for _, want := range []string{"one of the two", "Sharing is not Competing: each message could be delivered 2 times"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in:\n%v", want, err)
		}
	}
}

package watermill

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

func TestConcurrencyIsThatOfAllTopicsTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSubscriber{}
		tr := newTransport(t, nil, f, Config{})
		s := sub("s", "a", "b", "c")
		s.Concurrency = 2
		ch := subscribe(t.Context(), t, tr, s)
		for _, topic := range s.Topics {
			f.on(t, topic).offer(topic)
		}
		synctest.Wait()
		first, second := <-ch, <-ch
		synctest.Wait()
		if !isOpen(t, ch) {
			t.Fatal("the channel is closed")
		}
		first.Ack()
		synctest.Wait()
		third := <-ch
		got := []string{first.UUID, second.UUID, third.UUID}
		slices.Sort(got)
		if !slices.Equal(got, s.Topics) {
			t.Errorf("received %q; want each of %q", got, s.Topics)
		}
		for _, msg := range []*message.Message{first, second, third} {
			if topic := transports.Topic(msg); topic != msg.UUID {
				t.Errorf("the message of the topic %q has the topic %q", msg.UUID, topic)
			}
		}
		second.Ack()
		third.Ack()
	})
}

// A quiet topic must not hold the only slot.
func TestQuietTopicHoldsNoSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSubscriber{}
		tr := newTransport(t, nil, f, Config{})
		ch := subscribe(t.Context(), t, tr, sub("s", "quiet", "busy"))
		for _, id := range []string{"1", "2", "3"} {
			f.on(t, "busy").offer(id)
			receive(t, ch, id).Ack()
		}
	})
}

func TestSeveralConsumersOfATopic(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		concurrency, limit int
		ordered            bool
		want               int // calls of Subscribe for each topic
	}{
		{concurrency: 8, limit: 3, want: 3},
		{concurrency: 2, limit: 3, want: 2},
		{concurrency: 8, limit: 0, want: 1},
		{concurrency: 8, limit: 3, ordered: true, want: 1},
	} {
		f := &fakeSubscriber{}
		tr := newTransport(t, nil, f, Config{Sharing: Competing, MaxConsumers: c.limit, Ordered: true})
		s := transports.Subscription{Name: "s", Topics: []string{"a", "b", "a"}, Concurrency: c.concurrency, Ordered: c.ordered}
		if c.ordered {
			s.Topics = []string{"a"}
		}
		subscribe(t.Context(), t, tr, s)
		calls := map[string]int{}
		for _, topic := range f.topics() {
			calls[topic]++
		}
		if calls["a"] != c.want || !c.ordered && calls["b"] != c.want {
			t.Errorf("%+v: topics were subscribed to %v times", c, calls)
		}
	}
}

// Many subscribers drop what is in flight when the context of their subscription ends.
func TestSubscriptionLivesUntilAllIsSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSubscriber{}
		tr := newTransport(t, nil, f, Config{})
		ctx, stop := context.WithCancel(t.Context())
		ch := subscribe(ctx, t, tr, sub("s", "a", "b"))
		inFlight, held := f.on(t, "a").offer("1"), f.on(t, "b")
		msg := receive(t, ch, "1")
		waiting := held.offer("2")
		synctest.Wait()
		stop()
		synctest.Wait()
		if !ended(waiting.Nacked()) {
			t.Error("what was held back is not nacked")
		}
		unreceived := held.offer("3")
		time.Sleep(time.Hour)
		if held.ctx.Err() != nil || f.on(t, "a").ctx.Err() != nil {
			t.Error("a subscription ends while a message is in flight")
		}
		if ended(unreceived.Acked()) || ended(unreceived.Nacked()) {
			t.Error("intake goes on")
		}
		if !isOpen(t, ch) || msg.Context().Err() != nil {
			t.Error("it has ended while a message is in flight")
		}
		msg.Ack()
		synctest.Wait()
		if !ended(inFlight.Acked()) {
			t.Error("the verdict is not passed on")
		}
		time.Sleep(headStart)
		synctest.Wait()
		if isOpen(t, ch) || msg.Context().Err() == nil || f.on(t, "a").ctx.Err() == nil {
			t.Error("it goes on after everything is settled")
		}
	})
}

// A subscriber that selects between the verdict and its end must have seen the verdict
// before the end comes.
func TestSubscriptionLivesUntilTheVerdictIsSeen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSubscriber{}
		tr := newTransport(t, nil, f, Config{})
		ctx, stop := context.WithCancel(t.Context())
		ch := subscribe(ctx, t, tr, sub("s", "a"))
		s := f.on(t, "a")
		in, seen := s.newMessage("1")
		go func() { s.ch <- in }()
		receive(t, ch, "1").Ack()
		stop()
		time.Sleep(noticeTimeout / 2)
		if s.ctx.Err() != nil {
			t.Error("the subscription ends before the verdict is seen")
		}
		seen()
		synctest.Wait()
		if s.ctx.Err() == nil {
			t.Error("the subscription goes on")
		}
	})
}

// One that never shows that it has seen a verdict is waited for in vain, but not long.
func TestVerdictThatIsNeverSeen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSubscriber{}
		tr := newTransport(t, nil, f, Config{})
		ctx, stop := context.WithCancel(t.Context())
		ch := subscribe(ctx, t, tr, sub("s", "a"))
		s := f.on(t, "a")
		in, seen := s.newMessage("1")
		defer seen()
		go func() { s.ch <- in }()
		receive(t, ch, "1").Ack()
		next, _ := s.newMessage("2")
		go func() { s.ch <- next }()
		receive(t, ch, "2").Nack() // the slot is free at once
		s.offer("3")
		receive(t, ch, "3").Nack()
		stop()
		time.Sleep(noticeTimeout)
		synctest.Wait()
		if s.ctx.Err() == nil {
			t.Error("the subscription goes on")
		}
	})
}

func TestLostTopicEndsTheSubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSubscriber{}
		tr := newTransport(t, nil, f, Config{})
		ch := subscribe(t.Context(), t, tr, sub("s", "a", "b"))
		in := f.on(t, "b").offer("1")
		msg := receive(t, ch, "1")
		f.on(t, "a").end()
		synctest.Wait()
		if !isOpen(t, ch) {
			t.Error("the channel is closed while a message is in flight")
		}
		msg.Ack()
		time.Sleep(headStart)
		synctest.Wait()
		if !ended(in.Acked()) {
			t.Error("the verdict is not passed on")
		}
		if isOpen(t, ch) {
			t.Error("the channel is open, and nothing can come any more")
		}
	})
}

type (
	subscribeKey struct{}
	messageKey   struct{}
)

func TestMessageContextIsTheConsumersOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSubscriber{}
		tr := newTransport(t, nil, f, Config{})
		ctx, stop := context.WithCancel(context.WithValue(t.Context(), subscribeKey{}, "subscribe"))
		ch := subscribe(ctx, t, tr, sub("s", "a"))
		s := f.on(t, "a")
		in, cancel := s.newMessage("1")
		// As a partition in Kafka, or a publisher's context that was preserved.
		in.SetContext(context.WithValue(context.WithValue(in.Context(), messageKey{}, "message"), subscribeKey{}, "other"))
		go func() { s.ch <- in }()
		msg := receive(t, ch, "1")
		if got := msg.Context().Value(subscribeKey{}); got != "subscribe" {
			t.Errorf("the value of Subscribe's context is %v", got)
		}
		if got := msg.Context().Value(messageKey{}); got != "message" {
			t.Errorf("the value of the Watermill message's context is %v", got)
		}
		child, cancelChild := context.WithCancel(msg.Context())
		defer cancelChild()
		cancel()
		stop()
		synctest.Wait()
		if msg.Context().Err() != nil {
			t.Error("it ends with the subscriber's, or with Subscribe's")
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		if !errors.Is(context.Cause(child), transports.ErrClosed) {
			t.Errorf("it ended with %v; want ErrClosed", context.Cause(child))
		}
		if !ended(in.Nacked()) {
			t.Error("Close does not nack what is in flight")
		}
		if msg.Ack() {
			t.Error("an acknowledgement after Close counts")
		}
	})
}

func TestMessageOnOfferIsNackedWhenIntakeEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSubscriber{}
		tr := newTransport(t, nil, f, Config{})
		ctx, stop := context.WithCancel(t.Context())
		subscribe(ctx, t, tr, sub("s", "a"))
		in, cancel := f.on(t, "a").newMessage("1")
		defer cancel()
		f.on(t, "a").ch <- in
		synctest.Wait()
		stop()
		synctest.Wait()
		if !ended(in.Nacked()) {
			t.Error("it is not nacked")
		}
	})
}

func TestAcknowledgementAtTheVeryEndCounts(t *testing.T) {
	t.Parallel()
	delivery, end := context.WithCancel(t.Context())
	end()
	c := &consumer{delivery: delivery}
	for range 100 { // the verdict and the end are seen at once, in either order
		acked, nacked, neither := message.NewMessage("1", nil), message.NewMessage("2", nil), message.NewMessage("3", nil)
		acked.Ack()
		nacked.Nack()
		if !c.verdict(acked) || c.verdict(nacked) || c.verdict(neither) {
			t.Fatal("a verdict is passed on as another")
		}
	}
}

// What an ending subscriber still offers goes back.
func TestOffersOfAnEndingSubscriberAreNacked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSubscriber{deaf: true}
		tr := newTransport(t, nil, f, Config{})
		ctx, stop := context.WithCancel(t.Context())
		ch := subscribe(ctx, t, tr, sub("s", "a"))
		s := f.on(t, "a")
		stop()
		synctest.Wait()
		msg, cancel := s.newMessage("1")
		defer cancel()
		start := time.Now()
		s.ch <- msg
		if waited := time.Since(start); waited != headStart {
			t.Errorf("it was taken after %s; want the subscriber to have %s to take it back", waited, headStart)
		}
		synctest.Wait()
		if !ended(msg.Nacked()) {
			t.Error("it is not nacked")
		}
		s.end()
		synctest.Wait()
		if isOpen(t, ch) {
			t.Error("the channel is open")
		}
	})
}

func TestSubscriberThatDoesNotEndIsLeftBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSubscriber{deaf: true}
		tr, err := New(nil, f, Config{CloseTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ch := subscribe(ctx, t, tr, sub("s", "a"))
		stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		if isOpen(t, ch) {
			t.Error("the channel is open")
		}
		err = tr.Close()
		if err == nil || !strings.Contains(err.Error(), "the subscriber of s has not ended within 1m0s") {
			t.Errorf("Close: %v; want what was left behind", err)
		}
	})
}

package transporttest

import (
	"context"
	"errors"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

var lifecycleTests = []test{
	{"Close ends deliveries and closes channels", nil, closeEndsDeliveries},
	{"Close twice and concurrently", nil, closeTwiceAndConcurrently},
	{"Close does not wait for a receiver", nil, closeDoesNotWaitForReceiver},
	{"use after Close is refused", nil, useAfterClose},
	{"Close of one transport leaves the others alone", nil, closeLeavesOthersAlone},
	{"Subscribe with an ended context is refused", nil, subscribeWithEndedContext},
	{"ping answers while the transport can be used", []Feature{Ping}, pingAnswers},
}

func closeEndsDeliveries(e *env) {
	tr := e.Open(e.T)
	ch := e.subscribe(tr, e.wide("s", "a"))
	idle := e.subscribe(tr, e.sub("idle", "b"))
	e.publish(tr, "a", "1", "2")
	msgs := e.receiveIDs(ch, "1", "2")
	if err := msgs[0].Context().Err(); err != nil {
		e.Errorf("the message's context ended early: %v", err)
	}
	if err := tr.Close(); err != nil {
		e.Error(err)
	}
	for _, msg := range msgs {
		e.wantDone(msg.Context(), "the message's context")
		if cause := context.Cause(msg.Context()); !errors.Is(cause, transports.ErrClosed) {
			e.Errorf("the message's context ended with %v; want ErrClosed", cause)
		}
	}
	e.wantClosed(ch)
	e.wantClosed(idle)
	msgs[0].Ack() // too late, and harmless
	msgs[1].Nack()
}

func closeTwiceAndConcurrently(e *env) {
	tr := e.Open(e.T)
	var channels []<-chan *message.Message
	for _, name := range []string{"one", "two", "three"} {
		channels = append(channels, e.subscribe(tr, e.wide(name, "a")))
	}
	e.publish(tr, "a", numbers(10)...)
	var closing sync.WaitGroup
	for range 8 {
		closing.Go(func() {
			if err := tr.Close(); err != nil {
				e.Errorf("close: %v", err)
			}
		})
	}
	closed := make(chan struct{})
	go func() {
		closing.Wait()
		close(closed)
	}()
	select {
	case <-closed:
	case <-e.patience():
		e.Fatalf("Close blocks after %s", e.Patience)
	}
	if err := tr.Close(); err != nil {
		e.Errorf("close again: %v", err)
	}
	for _, ch := range channels {
		e.drained(ch)
	}
}

// drained gives back what is left in a channel, and wants it to be closed.
func (e *env) drained(ch <-chan *message.Message) {
	e.Helper()
	for {
		select {
		case msg, ok := <-ch:
			if !ok {
				return
			}
			msg.Nack()
		case <-e.patience():
			e.Fatalf("the channel is not closed after %s", e.Patience)
		}
	}
}

func closeDoesNotWaitForReceiver(e *env) {
	tr := e.Open(e.T)
	ch := e.subscribe(tr, e.wide("s", "a"))
	e.publish(tr, "a", numbers(20)...)
	e.receive(ch) // the rest is on offer
	closed := make(chan error, 1)
	go func() { closed <- tr.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			e.Error(err)
		}
	case <-e.patience():
		e.Fatalf("Close blocks after %s", e.Patience)
	}
	e.drained(ch)
}

func useAfterClose(e *env) {
	tr := e.Open(e.T)
	e.drained(e.subscribeAndClose(tr))
	msg, ctx, name := e.newMessage("1"), e.Context(), e.name("s")
	calls := map[string]func() error{
		"Publish":      func() error { return tr.Publish(e.topic("a"), msg) },
		"Publish many": func() error { return tr.Publish(e.topic("a"), msg, msg) },
		"Subscribe":    func() error { _, err := tr.Subscribe(ctx, e.sub("s", "a")); return err },
	}
	if tr, ok := tr.(transports.BatchPublisher); ok {
		calls["PublishBatch"] = func() error {
			return tr.PublishBatch(ctx, []transports.Outgoing{{Topic: e.topic("a"), Message: e.newMessage("1")}})
		}
	}
	if tr, ok := tr.(transports.Requeuer); ok {
		calls["Requeue"] = func() error { return tr.Requeue(ctx, name, msg, 0) }
	}
	if tr, ok := tr.(transports.PoisonQueue); ok {
		calls["Poison"] = func() error { return tr.Poison(ctx, name, msg) }
		calls["Poisoned"] = func() (last error) {
			for _, err := range tr.Poisoned(ctx, name, transports.PoisonPage{}) {
				last = err
			}
			return last
		}
		calls["RequeuePoisoned"] = func() error { _, err := tr.RequeuePoisoned(ctx, name, "1"); return err }
		calls["DiscardPoisoned"] = func() error { _, err := tr.DiscardPoisoned(ctx, name, "1"); return err }
	}
	if tr, ok := tr.(transports.SubscriptionRemover); ok {
		calls["RemoveSubscription"] = func() error { return tr.RemoveSubscription(ctx, name) }
	}
	if tr, ok := tr.(transports.Pinger); ok {
		calls["Ping"] = func() error { return tr.Ping(ctx) }
	}
	if tr, ok := tr.(transports.DepthReporter); ok {
		calls["Depth"] = func() error { _, err := tr.Depth(ctx, name); return err }
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, transports.ErrClosed) {
			e.Errorf("%s after Close: %v; want ErrClosed", name, err)
		}
	}
}

// subscribeAndClose returns a channel of the closed transport.
func (e *env) subscribeAndClose(tr transports.Transport) <-chan *message.Message {
	e.Helper()
	ch := e.subscribe(tr, e.sub("s", "a"))
	if err := tr.Close(); err != nil {
		e.Errorf("close: %v", err)
	}
	return ch
}

func closeLeavesOthersAlone(e *env) {
	tr, closing := e.open(), e.Open(e.T)
	ch := e.subscribe(tr, e.sub("s", "a"))
	e.drained(e.subscribeAndClose(closing))
	e.publish(tr, "a", "1")
	e.ackIDs(ch, "1")
}

func subscribeWithEndedContext(e *env) {
	tr := e.open()
	ctx, cancel := context.WithCancelCause(e.Context())
	cancel(errSample)
	if _, err := tr.Subscribe(ctx, e.sub("s", "a")); !errors.Is(err, errSample) && !errors.Is(err, context.Canceled) {
		e.Errorf("Subscribe: %v; want why the context ended", err)
	}
}

func pingAnswers(e *env) {
	tr := e.open().(transports.Pinger)
	if err := tr.Ping(e.Context()); err != nil {
		e.Error(err)
	}
	ctx, cancel := context.WithCancel(e.Context())
	cancel()
	if err := tr.Ping(ctx); err == nil {
		e.Error("ping with an ended context returned nil")
	}
}

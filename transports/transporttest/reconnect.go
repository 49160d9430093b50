package transporttest

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

var reconnectTests = []test{
	{"a subscription outlives its connection", []Feature{Reconnect, Durable}, subscriptionOutlivesConnection},
	{"what was in flight comes again after the connection was lost", []Feature{Reconnect, Durable}, inFlightComesAgain},
	{"publish waits for the connection", []Feature{Reconnect}, publishWaitsForConnection},
	{"publish without a connection ends with its context", []Feature{Reconnect}, publishWithoutConnectionEnds},
	{"a subscription says why it receives nothing", []Feature{Reconnect, Durable}, subscriptionSaysWhy},
	{"a transport without a connection can be closed", []Feature{Reconnect}, closeWithoutConnection},
}

// openCuttable is open for a transport whose connection can be cut.
func (e *env) openCuttable() (tr transports.Transport, cut, restore func()) {
	e.Helper()
	tr, cut, restore = e.OpenCuttable(e.T)
	return e.closing(tr), cut, restore
}

func subscriptionOutlivesConnection(e *env) {
	publisher := e.open()
	tr, cut, restore := e.openCuttable()
	ch := e.subscribe(tr, e.sub("s", "a"))
	e.publish(publisher, "a", "1")
	e.ackIDs(ch, "1")
	for _, id := range []string{"2", "3"} {
		cut()
		e.publish(publisher, "a", id)
		e.quiet(ch)
		restore()
		e.ackUntil(ch, id)
	}
}

// subscriptionSaysWhy: a subscription without its connection says so until it has one again,
// and a durable one misses nothing.
func subscriptionSaysWhy(e *env) {
	tr, cut, restore := e.openCuttable()
	s := e.sub("s", "a")
	interruptions := make(chan transports.Interruption, 1000)
	s.OnInterruption = func(i transports.Interruption) { interruptions <- i }
	ch := e.subscribe(tr, s)
	await := func(interrupted bool) {
		e.Helper()
		for {
			select {
			case i := <-interruptions:
				if i.Missing {
					e.Errorf("a durable subscription says that it misses something: %v", i.Cause)
				}
				if (i.Cause != nil) == interrupted {
					return
				}
			case <-e.patience():
				e.Fatalf("the subscription does not say within %s that it receives: %t", e.Patience, !interrupted)
			}
		}
	}
	for range 2 {
		cut()
		await(true)
		restore()
		await(false)
	}
	e.publish(e.open(), "a", "1")
	e.ackUntil(ch, "1")
}

// ackUntil takes messages until the one of that id: an acknowledgement that was
// lost with the connection brings earlier ones again.
func (e *env) ackUntil(ch <-chan *message.Message, id string) {
	e.Helper()
	for {
		msg := e.receive(ch)
		msg.Ack()
		if msg.UUID == id {
			return
		}
	}
}

func inFlightComesAgain(e *env) {
	publisher := e.open()
	tr, cut, restore := e.openCuttable()
	ch := e.subscribe(tr, e.sub("s", "a"))
	e.publish(publisher, "a", "1")
	msg := e.receiveIDs(ch, "1")[0]
	cut()
	restore()
	again := make(chan *message.Message, 1)
	go func() {
		if msg, ok := <-ch; ok {
			again <- msg
		}
		close(again)
	}()
	// The limit of one in flight may count the old delivery until it is settled,
	// which a broker may not hear of any more. Where what is in flight does not depend
	// on the connection, an acknowledgement would still count, so it is no loss then.
	msg.Nack()
	e.receiveIDs(again, "1")[0].Ack()
	e.publish(publisher, "a", "2")
	e.ackIDs(ch, "2")
}

func publishWaitsForConnection(e *env) {
	ch := e.subscribe(e.open(), e.wide("s", "a"))
	tr, cut, restore := e.openCuttable()
	e.publish(tr, "a", "1")
	cut()
	waiting := e.publishLater(e.Context(), tr, "2")
	e.pending(waiting)
	restore()
	if err := e.result(waiting); err != nil {
		e.Fatal(err)
	}
	e.ackUntil(ch, "2")
	e.publish(tr, "a", "3")
	e.ackUntil(ch, "3")
}

func publishWithoutConnectionEnds(e *env) {
	tr, cut, restore := e.openCuttable()
	cut()
	defer restore()
	ctx, cancel := context.WithCancelCause(e.Context())
	waiting := e.publishLater(ctx, tr, "1")
	e.pending(waiting)
	cancel(errSample)
	if err := e.result(waiting); !errors.Is(err, errSample) && !errors.Is(err, context.Canceled) {
		e.Errorf("publish returned %v; want why its context ended", err)
	}
}

func closeWithoutConnection(e *env) {
	tr, cut, restore := e.OpenCuttable(e.T)
	ch := e.subscribe(tr, e.sub("s", "a"))
	cut()
	defer restore()
	closed := make(chan struct{})
	go func() {
		_ = tr.Close() // with an error or without: the broker could not be told
		close(closed)
	}()
	select {
	case <-closed:
	case <-e.patience():
		e.Fatalf("Close blocks after %s", e.Patience)
	}
	e.drained(ch)
}

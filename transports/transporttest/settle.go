package transporttest

import (
	"context"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

var settleTests = []test{
	{"a nacked message comes back", nil, nackedMessageComesBack},
	{"a message that is nacked each time comes back at intervals", nil, nackedMessageBacksOff},
	{"an ordered subscription waits for a message that is nacked each time", []Feature{Ordered, NackOrder}, nackedMessageKeepsOrder},
	{"a message that is nacked each time lets others pass", []Feature{NackPassing}, nackedMessageLetsOthersPass},
	{"an acknowledged message does not come back", []Feature{Durable}, ackedMessageDoesNotComeBack},
	{"what a dead consumer held goes to another", []Feature{Durable}, deadConsumersMessagesGoToAnother},
	{"the end of the context stops intake only", []Feature{Durable}, endOfContextStopsIntake},
	{"a nacked message of an ending consumer goes to another", []Feature{Groups, Durable}, endingConsumersNackGoesToAnother},
	{"a message's context ends after its channel", nil, messageContextEndsAfterChannel},
	{"what is acknowledged after the end of the context stays acknowledged", []Feature{Durable}, lateAcksAreKept},
}

func nackedMessageComesBack(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	other := e.subscribe(tr, e.sub("other", "a"))
	e.publish(tr, "a", "1")
	for range 3 {
		msg := e.receiveIDs(ch, "1")[0]
		if string(msg.Payload) != "1" || msg.Metadata["ce_source"] != e.id {
			e.Errorf("received payload %q, metadata %q", msg.Payload, msg.Metadata)
		}
		msg.Nack()
	}
	e.ackIDs(ch, "1")
	e.ackIDs(other, "1") // which has it once
	e.quiet(ch, other)
}

// nacksAtOnce is how often a message that is nacked each time may come back without a pause.
const nacksAtOnce = 11

// A plain Watermill router nacks what its handler fails, at once.
func nackedMessageBacksOff(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	e.publish(tr, "a", "1")
	e.nackOften(ch, "1")
	e.ackIDs(ch, "1")
}

func nackedMessageKeepsOrder(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.ordered())
	e.publish(tr, "a", "1", "2", "3")
	e.nackOften(ch, "1")
	e.ackInOrder(ch, "1", "2", "3")
}

// nackOften nacks a message, the only one that may arrive, until it has been held back.
func (e *env) nackOften(ch <-chan *message.Message, id string) {
	e.Helper()
	began := time.Now()
	for n := 0; time.Since(began) < time.Second; n++ {
		if n > nacksAtOnce {
			e.Fatalf("delivered %d times in %v; want a pause of a second", n, time.Since(began))
		}
		e.receiveIDs(ch, id)[0].Nack()
	}
}

func nackedMessageLetsOthersPass(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	began := time.Now()
	others := numbers(100)
	e.publish(tr, "a", append([]string{"refused"}, others...)...)
	var handled []string
	refused := 0
	for len(handled) < len(others) || refused == 0 {
		msg := e.receive(ch)
		if msg.UUID == "refused" {
			refused++
			msg.Nack()
		} else {
			handled = append(handled, msg.UUID)
			msg.Ack()
		}
		if most := 2 * nacksAtOnce * (1 + int(time.Since(began).Seconds())); refused > most {
			e.Fatalf("the nacked message was delivered %d times in %v, and %d others; want %d times at most", refused, time.Since(began), len(handled), most)
		}
	}
	e.wantIDs(handled, others...)
	e.ackIDs(ch, "refused")
}

func ackedMessageDoesNotComeBack(e *env) {
	tr := e.open()
	ctx, stop := context.WithCancel(e.Context())
	defer stop()
	ch := e.subscribeContext(ctx, tr, e.wide("s", "a"))
	ids := numbers(20)
	e.publish(tr, "a", ids...)
	e.ackIDs(ch, ids...)
	stop()
	e.wantClosed(ch)
	e.quiet(e.subscribe(e.open(), e.wide("s", "a")))
}

func deadConsumersMessagesGoToAnother(e *env) {
	tr, dying := e.open(), e.Open(e.T)
	ch := e.subscribe(dying, e.wide("s", "a"))
	e.publish(tr, "a", "1", "2", "3")
	e.receiveIDs(ch, "1", "2", "3")
	if err := dying.Close(); err != nil {
		e.Error(err)
	}
	e.wantClosed(ch)
	e.publish(tr, "a", "4")
	again := e.subscribe(tr, e.sub("s", "a"))
	e.ackIDs(again, "1", "2", "3", "4")
	e.quiet(again)
}

func endOfContextStopsIntake(e *env) {
	tr, other := e.open(), e.open()
	ctx, stop := context.WithCancel(e.Context())
	defer stop()
	s := e.sub("s", "a")
	s.Concurrency = 3
	ch := e.subscribeContext(ctx, tr, s)
	e.publish(other, "a", numbers(5)...)
	acked, nacked := e.receive(ch), e.receive(ch) // a third is on offer
	stop()
	e.onOffer(ch)
	if err := acked.Context().Err(); err != nil {
		e.Errorf("the message's context ended with that of Subscribe: %v", err)
	}
	acked.Ack()
	e.quiet(ch) // one is still in flight
	nacked.Nack()
	e.wantClosed(ch)

	var rest []string
	for _, id := range numbers(5) {
		if id != acked.UUID {
			rest = append(rest, id)
		}
	}
	again := e.subscribe(other, e.sub("s", "a"))
	e.ackIDs(again, rest...)
	e.quiet(again)
}

// onOffer gives back the one message that may have been on offer when the context
// ended. Were intake to go on, that would come again at once.
func (e *env) onOffer(ch <-chan *message.Message) {
	e.Helper()
	received := 0
	for end := time.After(e.Quiet); ; {
		select {
		case msg, ok := <-ch:
			received++
			switch {
			case !ok:
				e.Fatal("the channel is closed while two messages are in flight")
			case received > 1:
				e.Fatalf("received %q after the end of the context", msg.UUID)
			}
			msg.Nack()
		case <-end:
			return
		}
	}
}

func endingConsumersNackGoesToAnother(e *env) {
	ctx, stop := context.WithCancel(e.Context())
	defer stop()
	ending := e.subscribeContext(ctx, e.open(), e.sub("s", "a"))
	publisher := e.open()
	e.publish(publisher, "a", "1")
	msg := e.receive(ending)
	other := e.subscribe(publisher, e.sub("s", "a"))
	stop()
	e.quiet(ending, other)
	msg.Nack()
	e.ackIDs(other, "1")
	e.wantClosed(ending)
}

// Handlers that end at the same time, after a shutdown has begun, have handled their messages.
func lateAcksAreKept(e *env) {
	tr := e.open()
	e.declare(tr, e.wide("s", "a"))
	var ids []string
	acked := make(map[string]bool)
	for round := range 6 {
		if round < 5 {
			for range 64 {
				ids = append(ids, strconv.Itoa(len(ids)))
				e.publish(tr, "a", ids[len(ids)-1])
			}
		}
		ctx, stop := context.WithCancel(e.Context())
		ch := e.subscribeContext(ctx, tr, e.wide("s", "a"))
		var held []*message.Message
		for waiting := true; waiting && len(held) < 64; {
			select {
			case msg := <-ch:
				if acked[msg.UUID] {
					e.Fatalf("received %q, which was acknowledged before the channel was closed", msg.UUID)
				}
				held = append(held, msg)
			case <-time.After(e.Quiet): // no more at a time
				waiting = false
			}
		}
		stop()
		for _, msg := range held {
			acked[msg.UUID] = true
			go msg.Ack()
		}
		for open := true; open; {
			select {
			case msg, ok := <-ch:
				if open = ok; ok { // it was on offer
					msg.Nack()
				}
			case <-e.patience():
				e.Fatalf("the channel is not closed after %s", e.Patience)
			}
		}
	}
}

func messageContextEndsAfterChannel(e *env) {
	tr := e.open()
	ctx, stop := context.WithCancel(e.Context())
	defer stop()
	ch := e.subscribeContext(ctx, tr, e.sub("s", "a"))
	e.publish(tr, "a", "1")
	msg := e.receive(ch)
	stop()
	msg.Ack()
	e.wantClosed(ch)
	e.wantDone(msg.Context(), "the message's context")
}

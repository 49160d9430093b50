package transporttest

import (
	"context"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"
)

var groupTests = []test{
	{"every subscription gets every message", nil, everySubscriptionGetsEveryMessage},
	{"consumers of one subscription share its messages", []Feature{Groups}, consumersShare},
	{"a free consumer gets what a busy one can't take", []Feature{Groups}, freeConsumerGetsTheNext},
	{"subscribing again adds topics", []Feature{AddedTopics, Durable}, subscribingAgainAddsTopics},
	{"an ephemeral subscription sees what comes while it lives", []Feature{Ephemeral}, ephemeralSeesWhatComes},
	{"an ephemeral subscription ends with its transport", []Feature{Ephemeral}, ephemeralEndsWithTransport},
	{"an ephemeral subscription shares its name with nobody", []Feature{Ephemeral}, ephemeralIsNotShared},
}

// numbers returns the ids 1 to n.
func numbers(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = strconv.Itoa(i + 1)
	}
	return ids
}

func everySubscriptionGetsEveryMessage(e *env) {
	publisher := e.open()
	channels := []<-chan *message.Message{
		e.subscribe(publisher, e.sub("one", "a")),
		e.subscribe(e.open(), e.sub("two", "a")),
		e.subscribe(e.open(), e.wide("three", "a", "b")),
	}
	other := e.subscribe(publisher, e.sub("other", "b"))
	ids := numbers(10)
	e.publish(publisher, "a", ids...)
	for _, ch := range channels {
		e.ackIDs(ch, ids...)
	}
	e.quiet(append(channels, other)...)
}

func consumersShare(e *env) {
	publisher := e.open()
	const consumers, messages = 4, 40
	received := make(chan string, 2*messages)
	for range consumers {
		ch := e.subscribe(e.open(), e.sub("s", "a"))
		go func() {
			for msg := range ch {
				received <- msg.UUID
				msg.Ack()
			}
		}()
	}
	ids := numbers(messages)
	e.publish(publisher, "a", ids...)
	var got []string
	for range ids {
		select {
		case id := <-received:
			got = append(got, id)
		case <-e.patience():
			e.Fatalf("received %q, and no more after %s", got, e.Patience)
		}
	}
	e.wantIDs(got, ids...)
}

func freeConsumerGetsTheNext(e *env) {
	publisher := e.open()
	one, two := e.subscribe(publisher, e.sub("s", "a")), e.subscribe(e.open(), e.sub("s", "a"))
	e.publish(publisher, "a", "1", "2", "3")
	// Each holds one, whichever it is, so the third waits for the first who is free.
	first, second := e.receive(one), e.receive(two)
	e.quiet(one, two)
	second.Ack()
	third := e.receive(two)
	e.wantIDs([]string{first.UUID, second.UUID, third.UUID}, "1", "2", "3")
	first.Ack()
	third.Ack()
	e.quiet(one, two)
}

func subscribingAgainAddsTopics(e *env) {
	tr := e.open()
	e.declare(tr, e.sub("s", "a"))
	e.declare(tr, e.sub("s", "b"))
	e.publish(tr, "a", "1")
	e.publish(tr, "b", "2")
	e.publish(tr, "c", "3")
	ch := e.subscribe(tr, e.sub("s", "b"))
	e.ackIDs(ch, "1", "2")
	e.quiet(ch)
}

func ephemeralSeesWhatComes(e *env) {
	tr := e.open()
	e.publish(tr, "a", "0")
	one, two := e.sub("one", "a"), e.sub("two", "a")
	one.Ephemeral, two.Ephemeral = true, true
	ctx, stop := context.WithCancel(e.Context())
	defer stop()
	chOne, chTwo := e.subscribeContext(ctx, tr, one), e.subscribe(e.open(), two)
	e.publish(tr, "a", "1")
	e.ackIDs(chOne, "1")
	e.ackIDs(chTwo, "1")

	e.publish(tr, "a", "2")
	e.receiveIDs(chOne, "2")[0].Nack() // it is in there again, and goes with the subscription
	e.receiveIDs(chTwo, "2")[0].Ack()
	stop()
	e.drained(chOne)
	e.publish(tr, "a", "3")
	again := e.subscribe(tr, one) // the name is free once the channel is closed
	e.publish(tr, "a", "4")
	e.ackIDs(again, "4")
	e.quiet(again)
	e.ackIDs(chTwo, "3", "4")
}

func ephemeralEndsWithTransport(e *env) {
	tr, closing := e.open(), e.Open(e.T)
	s := e.sub("s", "a")
	s.Ephemeral = true
	ch := e.subscribe(closing, s)
	e.publish(tr, "a", "1")
	e.receiveIDs(ch, "1")
	if err := closing.Close(); err != nil {
		e.Error(err)
	}
	e.wantClosed(ch)
	again := e.subscribe(tr, s)
	e.publish(tr, "a", "2")
	e.ackIDs(again, "2")
	e.quiet(again)
}

func ephemeralIsNotShared(e *env) {
	tr, other := e.open(), e.open()
	s := e.sub("s", "a")
	s.Ephemeral = true
	ch := e.subscribe(tr, s)
	if _, err := other.Subscribe(e.Context(), s); err == nil {
		e.Error("two consumers share an ephemeral subscription")
	}
	e.publish(other, "a", "1") // the refusal has hurt neither
	e.ackIDs(ch, "1")
}

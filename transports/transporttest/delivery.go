package transporttest

import (
	"context"
	"maps"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/transports"
)

var deliveryTests = []test{
	{"a message arrives as it was published", nil, messageArrivesAsPublished},
	{"a delivered message is a copy", nil, deliveredMessageIsACopy},
	{"a delivered message knows its topic", nil, deliveredMessageKnowsItsTopic},
	{"a delivered message has the values of Subscribe's context", nil, deliveredMessageHasContextValues},
	{"a subscription exists when Subscribe returns", nil, subscriptionStartsNow},
	{"messages wait for a consumer", []Feature{Durable}, messagesWait},
	{"concurrency is never exceeded", nil, concurrencyIsNeverExceeded},
	{"Subscribe reports every fault", nil, subscribeReportsEveryFault},
}

func messageArrivesAsPublished(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	msg := e.newMessage("1")
	msg.Metadata["ce_type"] = e.topic("a")
	msg.Metadata["ce_subject"] = "order 7"
	metadata := maps.Clone(msg.Metadata)
	if err := tr.Publish(e.topic("a"), msg); err != nil {
		e.Fatal(err)
	}
	if diff := cmp.Diff(metadata, msg.Metadata); diff != "" || string(msg.Payload) != "1" {
		e.Errorf("Publish changed the message: payload %q, metadata (-before +after):\n%s", msg.Payload, diff)
	}
	// From here on it is the publisher's again.
	msg.Payload[0] = 'x'
	msg.Metadata["ce_subject"] = "x"

	got := e.receive(ch)
	if got.UUID != "1" || string(got.Payload) != "1" {
		e.Errorf("received %q with %q; want 1 with 1", got.UUID, got.Payload)
	}
	if diff := cmp.Diff(metadata, got.Metadata); diff != "" {
		e.Errorf("metadata (-published +received):\n%s", diff)
	}
	got.Ack()
	e.quiet(ch)
}

func deliveredMessageIsACopy(e *env) {
	tr := e.open()
	first, second := e.subscribe(tr, e.sub("first", "a")), e.subscribe(tr, e.sub("second", "a"))
	e.publish(tr, "a", "1")
	msg := e.receive(first)
	msg.Payload[0] = 'x'
	msg.Metadata["ce_source"] = "x"
	msg.Metadata["mine"] = "x"
	msg.Nack()
	for _, ch := range []<-chan *message.Message{first, second} {
		got := e.receive(ch)
		if diff := cmp.Diff(e.newMessage("1").Metadata, withoutOwn(got.Metadata)); diff != "" || string(got.Payload) != "1" {
			e.Errorf("received payload %q; metadata (-published +received):\n%s", got.Payload, diff)
		}
		got.Ack()
	}
}

func deliveredMessageKnowsItsTopic(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a", "b"))
	for _, c := range []struct{ id, topic, eventType string }{
		{"same", e.topic("a"), e.topic("a")},
		{"other", e.topic("b"), e.topic("a")},
		{"none", e.topic("a"), ""},
	} {
		msg := e.newMessage(c.id)
		if c.eventType != "" {
			msg.Metadata["ce_type"] = c.eventType
		}
		if err := tr.Publish(c.topic, msg); err != nil {
			e.Fatal(err)
		}
		got := e.receive(ch)
		if topic := transports.Topic(got); topic != c.topic {
			e.Errorf("%s: the topic is %q; want %q", c.id, topic, c.topic)
		}
		if eventType := got.Metadata["ce_type"]; eventType != c.eventType {
			e.Errorf("%s: the type is %q; want %q", c.id, eventType, c.eventType)
		}
		got.Ack()
	}
}

type contextKey struct{}

func deliveredMessageHasContextValues(e *env) {
	tr := e.open()
	ch := e.subscribeContext(context.WithValue(e.Context(), contextKey{}, "value"), tr, e.sub("s", "a"))
	e.publish(tr, "a", "1")
	msg := e.receive(ch)
	if got := msg.Context().Value(contextKey{}); got != "value" {
		e.Errorf("the value is %v", got)
	}
	msg.Ack()
}

func subscriptionStartsNow(e *env) {
	tr, other := e.open(), e.open()
	for _, round := range []string{"1", "2", "3", "4", "5"} {
		e.publish(other, "a", "early"+round) // into nothing, which is no error, or to earlier rounds
		ch := e.subscribe(tr, e.sub("s"+round, "a"))
		e.publish(other, "a", "late"+round)
		e.receiveIDs(ch, "late"+round)[0].Ack()
	}
}

func messagesWait(e *env) {
	publisher := e.open()
	e.declare(publisher, e.sub("s", "a"))
	e.publish(publisher, "a", "1", "2", "3")
	e.ackIDs(e.subscribe(e.open(), e.sub("s", "a")), "1", "2", "3")
}

func concurrencyIsNeverExceeded(e *env) {
	tr := e.open()
	s := e.sub("s", "a")
	s.Concurrency = 3
	ch := e.subscribe(tr, s)
	ids := []string{"1", "2", "3", "4", "5", "6"}
	e.publish(tr, "a", ids...)
	var arrived []string
	receive := func() (ack func() bool) {
		msg := e.receive(ch)
		arrived = append(arrived, msg.UUID)
		return msg.Ack
	}
	held := []func() bool{receive(), receive(), receive()}
	e.quiet(ch)
	held[1]()
	held[1] = receive()
	e.quiet(ch)
	for _, ack := range held {
		ack()
	}
	receive()()
	receive()()
	e.wantIDs(arrived, ids...)
}

func subscribeReportsEveryFault(e *env) {
	tr := e.open()
	_, err := tr.Subscribe(e.Context(), transports.Subscription{})
	if err == nil {
		e.Fatal("an empty subscription is accepted")
	}
	for _, want := range []string{"name is empty", "has no topics", "concurrency 0"} {
		if !strings.Contains(err.Error(), want) {
			e.Errorf("want %q in:\n%v", want, err)
		}
	}
}

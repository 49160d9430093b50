package transporttest

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

var orderTests = []test{
	{"messages arrive in order", []Feature{Order}, messagesArriveInOrder},
	{"one Publish of many keeps their order", []Feature{Order}, publishOfManyKeepsOrder},
	{"a nacked message returns to its place", []Feature{NackOrder, Order}, nackedMessageReturnsToItsPlace},
	{"what a dead consumer held returns in order", []Feature{NackOrder, Order, Durable}, deadConsumersMessagesReturnInOrder},
	{"an ordered subscription has one active consumer", []Feature{Ordered, Groups}, orderedHasOneActiveConsumer},
	{"an ordered subscription keeps its order when its consumer changes", []Feature{Ordered, Groups}, orderSurvivesChangeOfConsumer},
}

func messagesArriveInOrder(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	ids := numbers(100)
	e.publish(tr, "a", ids...)
	e.ackInOrder(ch, ids...)
}

func publishOfManyKeepsOrder(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	ids := numbers(100)
	var msgs []*message.Message
	for _, id := range ids {
		msgs = append(msgs, e.newMessage(id))
	}
	if err := tr.Publish(e.topic("a"), msgs...); err != nil {
		e.Fatal(err)
	}
	e.ackInOrder(ch, ids...)
}

func nackedMessageReturnsToItsPlace(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	e.publish(tr, "a", "1", "2", "3")
	for range 3 {
		msg := e.receive(ch)
		if msg.UUID != "1" {
			e.Fatalf("received %q; want the nacked message first", msg.UUID)
		}
		msg.Nack()
	}
	e.ackInOrder(ch, "1", "2", "3")
}

func deadConsumersMessagesReturnInOrder(e *env) {
	tr, dying := e.open(), e.Open(e.T)
	s := e.sub("s", "a")
	s.Concurrency = 3
	ch := e.subscribe(dying, s)
	e.publish(tr, "a", numbers(5)...)
	e.receiveIDs(ch, "1", "2", "3")
	if err := dying.Close(); err != nil {
		e.Error(err)
	}
	e.ackInOrder(e.subscribe(tr, e.sub("s", "a")), numbers(5)...)
}

// ordered is an ordered subscription.
func (e *env) ordered() transports.Subscription {
	s := e.sub("s", "a")
	s.Ordered = true
	return s
}

func orderedHasOneActiveConsumer(e *env) {
	publisher := e.open()
	active := e.subscribe(e.open(), e.ordered())
	standby := e.subscribe(e.open(), e.ordered())
	e.publish(publisher, "a", "1", "2", "3")
	msg := e.receiveIDs(active, "1")[0]
	e.quiet(active, standby)
	msg.Ack()
	e.ackInOrder(active, "2", "3")
	e.quiet(active, standby)
}

func orderSurvivesChangeOfConsumer(e *env) {
	publisher, dying := e.open(), e.Open(e.T)
	active := e.subscribe(dying, e.ordered())
	standby := e.subscribe(e.open(), e.ordered())
	e.publish(publisher, "a", "1", "2", "3")
	e.ackInOrder(active, "1")
	e.receiveIDs(active, "2")
	if err := dying.Close(); err != nil {
		e.Error(err)
	}
	e.publish(publisher, "a", "4")
	// 1 may come again where its acknowledgement was lost with the connection.
	msg := e.receive(standby)
	if msg.UUID == "1" {
		msg.Ack()
		msg = e.receive(standby)
	}
	if msg.UUID != "2" {
		e.Fatalf("received %q; want 2, which the other consumer held", msg.UUID)
	}
	msg.Ack()
	e.ackInOrder(standby, "3", "4")
}

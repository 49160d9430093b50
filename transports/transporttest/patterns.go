package transporttest

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

var patternTests = []test{
	{"topics are matched exactly", nil, topicsAreMatchedExactly},
	{"topic patterns match words", []Feature{Patterns}, patternsMatchWords},
	{"a message that several patterns match arrives once", []Feature{Patterns}, severalPatternsDeliverOnce},
	{"an invalid topic pattern is refused", nil, invalidPatternIsRefused},
}

func topicsAreMatchedExactly(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.wide("s", "order.created"))
	for _, topic := range []string{"order", "order.created.late", "order.create", "Order.Created", "order-created", "a.order.created"} {
		e.publish(tr, topic, topic)
	}
	e.publish(tr, "order.created", "right")
	e.ackIDs(ch, "right")
	e.quiet(ch)
}

func patternsMatchWords(e *env) {
	tr := e.open()
	topics := []string{"order", "order.created", "order.item.added", "orders.created", "item.added", "a.b.c.d", "order..created"}
	patterns := []string{
		"order.*", "order.#", "*", "#", "*.created", "#.added", "order.*.added", "order.*.*", "*.#.d", "a.#.d", "#.item.#", "orders.created",
	}
	var channels []<-chan *message.Message
	for _, pattern := range patterns {
		channels = append(channels, e.subscribe(tr, e.wide("s "+pattern, pattern)))
	}
	for _, topic := range topics {
		e.publish(tr, topic, topic)
	}
	for i, pattern := range patterns {
		var want []string
		for _, topic := range topics {
			if transports.Match(pattern, topic) {
				want = append(want, topic)
			}
		}
		var got []string
		for range want {
			msg := e.receive(channels[i])
			got = append(got, msg.UUID)
			msg.Ack()
		}
		e.Logf("pattern %s", pattern)
		e.wantIDs(got, want...)
	}
	e.quiet(channels...)
}

func severalPatternsDeliverOnce(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.wide("s", "order.*", "#", "order.created"))
	e.publish(tr, "order.created", "1")
	e.ackIDs(ch, "1")
	e.quiet(ch)
}

func invalidPatternIsRefused(e *env) {
	tr := e.open()
	for _, pattern := range []string{"", "order.cr*", "a\nb", "\xff"} {
		s := e.sub("s")
		s.Topics = []string{pattern}
		if _, err := tr.Subscribe(e.Context(), s); err == nil {
			e.Errorf("the pattern %q is accepted", pattern)
		}
	}
}

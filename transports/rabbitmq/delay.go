package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// A delayed message passes through a chain of delay queues. Each has an exchange in front
// of it, holds every message for 2^k seconds, and dead-letters it to the exchange of the
// next shorter delay. The message's headers name the delay queues in which it waits, the
// bits of its delay in seconds. An exchange whose delay queue is not named passes the
// message on at once, to its alternate exchange.
//
//	publish ─► delay.05 ──── no header ───► delay.04 ─► … ─► due ─┬─► retry ─► the subscription's queue
//	              └─ header ─► queue, 32 s ─┘                     └─► events ─► every subscription
//
// So any number of seconds is a chain without a plugin, no message waits behind one with
// a longer delay, and none passes the same queue twice, which the broker would take for a
// cycle and drop silently: https://www.rabbitmq.com/docs/dlx#automatic-dead-letter-cycles
const (
	delayQueues = 22 // 2^22 seconds are 48 days
	maxDelay    = 30 * 24 * time.Hour

	dueHeader   = internalPrefix + "due"   // the retry exchange or the topic exchange
	delayHeader = internalPrefix + "delay" // followed by the delay queue's number
)

func delayHeaderOf(k int) string { return fmt.Sprintf("%s-%02d", delayHeader, k) }

// declareDelays makes the delay queues, the shortest first.
func (t *Transport) declareDelays(ch *amqp.Channel) error {
	d := &topology{ch: ch, mode: t.cfg.Topology}
	n := t.names
	d.exchange(n.due, amqp.ExchangeHeaders, amqp.Table{"alternate-exchange": n.unrouted})
	d.bindExchange(n.retry, "", n.due, amqp.Table{"x-match": "all", dueHeader: n.retry})
	d.bindExchange(n.exchange, "", n.due, amqp.Table{"x-match": "all", dueHeader: n.exchange})
	// When a delayed event is due, nobody may be subscribed to its topic any more. A delay
	// queue would wait for a queue to take it, and all messages behind it too. So the discard
	// queue takes a copy of every event, and keeps none. It is a quorum queue: while it
	// has no leader, delays stand still.
	d.queue(n.discard, amqp.Table{"x-queue-type": string(Quorum), "x-max-length": int64(0)})
	d.bind(n.discard, "", n.due, amqp.Table{"x-match": "all", dueHeader: n.exchange})
	next := n.due
	for k := range delayQueues {
		name := n.delay(k)
		d.exchange(name, amqp.ExchangeHeaders, amqp.Table{"alternate-exchange": next})
		d.queue(name, amqp.Table{
			"x-queue-type":           string(Quorum),
			"x-message-ttl":          int64(1000) << k,
			"x-dead-letter-exchange": next,
			"x-dead-letter-strategy": "at-least-once",
			"x-overflow":             "reject-publish",
			"x-delivery-limit":       int64(unlimited),
		})
		d.bind(name, "", name, amqp.Table{"x-match": "all", delayHeaderOf(k): true})
		next = name
	}
	if d.err == nil && d.mode == Declare && n.prefix == "" {
		t.oldDiscard.Do(func() { t.pub.spawn(t.removeOldDiscard) }) // in the background: its node may be down
	}
	return d.err
}

// oldDiscard is the discard queue of earlier versions: a classic queue, so on one node. While
// that node is down, a delay queue waits for it with every event that is due.
const oldDiscard = "tidings.sink"

// removeOldDiscard deletes the discard queue of earlier versions, which holds no messages. It
// needs a channel of its own, which a refusal closes. Where the user may not delete the queue,
// an operator has to.
func (t *Transport) removeOldDiscard() {
	ctx := t.pub.ctx
	err := t.pub.run(ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(oldDiscard, false, false, false) // no error when there is none
		return err
	})
	if isCode(err, amqp.AccessRefused) { // whether there is one or not
		err = t.pub.run(ctx, func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(oldDiscard, true, false, false, false, nil)
			return cmp.Or(err, errors.New("its deletion is refused"))
		})
	}
	if err != nil && ctx.Err() == nil && !isCode(err, amqp.NotFound) {
		t.log.Warn("the queue tidings.sink of an earlier version can't be deleted; delete it, because it stops delayed events while its node is down", slog.Any("error", err))
	}
}

// declareAgain makes what a publishing channel needs. The delay queues may have been lost
// with what it was made for, so they are declared when they are needed next.
func (t *Transport) declareAgain(ch *amqp.Channel) error {
	t.delays.forget()
	return t.declareExchanges(ch)
}

// send publishes messages, and those for a delay queue that somebody has deleted once
// more, when it is there again.
func (t *Transport) send(ctx context.Context, messages []outgoing) []error {
	results := t.out.publish(ctx, messages)
	var again []outgoing
	var index []int // of again in messages
	for i, err := range results {
		if isCode(err, amqp.NotFound) && t.names.isDelay(messages[i].exchange) {
			again, index = append(again, messages[i]), append(index, i)
		}
	}
	if len(again) == 0 {
		return results
	}
	t.delays.forget()
	if t.ensureDelays(ctx) != nil {
		return results
	}
	for i, err := range t.out.publish(ctx, again) {
		results[index[i]] = err
	}
	return results
}

// delayBy makes a message wait for d, rounded up to whole seconds, before it goes to
// the exchange that it was addressed to.
func (n names) delayBy(m *outgoing, d time.Duration) error {
	if d > maxDelay {
		return fmt.Errorf("%w: a delay of %v; the longest is %v", transports.ErrUnsupported, d, maxDelay)
	}
	seconds := uint64((d + time.Second - 1) / time.Second)
	m.msg.Headers[dueHeader] = m.exchange
	for k := range delayQueues {
		if seconds&(1<<k) != 0 {
			m.msg.Headers[delayHeaderOf(k)] = true
		}
	}
	m.exchange = n.delay(bits.Len64(seconds) - 1)
	return nil
}

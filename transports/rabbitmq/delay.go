package rabbitmq

import (
	"context"
	"fmt"
	"math/bits"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// A message that is to wait goes through a chain of tiers, each of them an exchange and
// a queue that holds everything for 2^k seconds and then passes it on to the next lower
// tier's exchange. The message says in its headers in which tiers it waits, the bits of
// its delay in seconds; an exchange whose tier it does not name passes it on at once, as
// its alternate exchange.
//
//	publish ─► delay.05 ──── no header ───► delay.04 ─► … ─► due ─┬─► retry ─► the subscription's queue
//	              └─ header ─► queue, 32 s ─┘                     └─► events ─► every subscription
//
// So any number of seconds is a chain without a plugin, no message waits behind one with
// a longer delay, and none comes through a tier twice, which the broker would take for a
// circle and drop without a word: https://www.rabbitmq.com/docs/dlx#automatic-dead-letter-cycles
const (
	tiers    = 22 // 2^22 seconds are 48 days
	maxDelay = 30 * 24 * time.Hour

	tierPrefix  = "tidings.delay."
	dueExchange = "tidings.due"  // headers: to the exchange that the message names
	sinkQueue   = "tidings.sink" // takes everything and keeps nothing, see declareDelays

	dueHeader  = internalPrefix + "due"   // retryExchange or a topic exchange
	tierHeader = internalPrefix + "delay" // with the tier's number behind it
)

func tierName(k int) string { return fmt.Sprintf(tierPrefix+"%02d", k) }

func tierHeaderOf(k int) string { return fmt.Sprintf("%s-%02d", tierHeader, k) }

// declareDelays makes the tiers, the last one first.
func (t *Transport) declareDelays(ch *amqp.Channel) error {
	d := &topology{ch: ch, mode: t.cfg.Topology}
	d.exchange(dueExchange, amqp.ExchangeHeaders, amqp.Table{"alternate-exchange": unroutedName})
	d.bindExchange(retryExchange, "", dueExchange, amqp.Table{"x-match": "all", dueHeader: retryExchange})
	d.bindExchange(t.cfg.Exchange, "", dueExchange, amqp.Table{"x-match": "all", dueHeader: t.cfg.Exchange})
	// Nobody may subscribe to a delayed event's topic any more when it is due. A tier
	// would wait for ever for a queue to take it, and everybody's messages with it.
	d.queue(sinkQueue, amqp.Table{"x-queue-type": string(Classic), "x-max-length": int64(0)})
	d.bind(sinkQueue, "", dueExchange, amqp.Table{"x-match": "all", dueHeader: t.cfg.Exchange})
	below := dueExchange
	for k := range tiers {
		name := tierName(k)
		d.exchange(name, amqp.ExchangeHeaders, amqp.Table{"alternate-exchange": below})
		d.queue(name, amqp.Table{
			"x-queue-type":           string(Quorum),
			"x-message-ttl":          int64(1000) << k,
			"x-dead-letter-exchange": below,
			"x-dead-letter-strategy": "at-least-once",
			"x-overflow":             "reject-publish",
			"x-delivery-limit":       int64(unlimited),
		})
		d.bind(name, "", name, amqp.Table{"x-match": "all", tierHeaderOf(k): true})
		below = name
	}
	return d.err
}

// declareAgain makes what a publishing channel needs. The delay tiers may have been lost
// with what it was made for, so they are declared when they are needed next.
func (t *Transport) declareAgain(ch *amqp.Channel) error {
	t.delays.forget()
	return t.declareExchanges(ch)
}

// send publishes messages, and those for a delay tier that somebody has deleted once
// more, when it is there again.
func (t *Transport) send(ctx context.Context, messages []outgoing) []error {
	results := t.out.publish(ctx, messages)
	var again []outgoing
	var index []int // of again in messages
	for i, err := range results {
		if isCode(err, amqp.NotFound) && strings.HasPrefix(messages[i].exchange, tierPrefix) {
			again, index = append(again, messages[i]), append(index, i)
		}
	}
	if len(again) == 0 || t.ensureDelays(ctx) != nil {
		return results
	}
	for i, err := range t.out.publish(ctx, again) {
		results[index[i]] = err
	}
	return results
}

// delayBy makes a message wait for d, rounded up to whole seconds, before it goes to
// the exchange that it was addressed to.
func delayBy(m *outgoing, d time.Duration) error {
	if d > maxDelay {
		return fmt.Errorf("%w: a delay of %v; the longest is %v", transports.ErrUnsupported, d, maxDelay)
	}
	seconds := uint64((d + time.Second - 1) / time.Second)
	m.msg.Headers[dueHeader] = m.exchange
	for k := range tiers {
		if seconds&(1<<k) != 0 {
			m.msg.Headers[tierHeaderOf(k)] = true
		}
	}
	m.exchange = tierName(bits.Len64(seconds) - 1)
	return nil
}

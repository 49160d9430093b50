package rabbitmq

import (
	"cmp"
	"fmt"
	"strings"
)

// defaultExchange is that of [Config.Exchange] "".
const defaultExchange = "events"

// names are the names at the broker of what belongs to one exchange, so that two
// environments can share a vhost: they begin with the exchange and a slash, except with
// the default exchange.
//
//	events    shop.mail    shop.mail:poison    tidings.delay.00
//	staging   staging/shop.mail    staging/shop.mail:poison    staging/tidings.delay.00
//
// Exchanges have no slash in their names. A subscription that has one is written with its
// exchange even when that is the default one. So no two subscriptions share a queue.
type names struct {
	exchange string // the topic exchange itself
	prefix   string

	retry    string // direct exchange: to a subscription's queue, by the queue's name
	unrouted string // fanout exchange and queue: messages whose queue was removed, or that never had one
	due      string // headers exchange: to the exchange that a delayed message names
	discard  string // queue that takes everything and keeps nothing, see declareDelays
}

const (
	slash         = "/"
	brokersPrefix = "amq." // of the broker's own queues and exchanges
)

func namesOf(exchange string) names {
	n := names{exchange: exchange}
	if exchange != defaultExchange {
		n.prefix = exchange + slash
	}
	if strings.HasPrefix(exchange, brokersPrefix) { // such an exchange may be used, but RabbitMQ lets nobody make a queue of that name
		n.prefix = slash + n.prefix
	}
	n.retry, n.unrouted = n.prefix+"tidings.retry", n.prefix+"tidings.unrouted"
	n.due, n.discard = n.prefix+"tidings.due", n.prefix+"tidings.discard"
	return n
}

// queue returns the name of a subscription's queue.
func (n names) queue(subscription string) string {
	if n.prefix == "" && strings.Contains(subscription, slash) {
		return n.exchange + slash + subscription
	}
	return n.prefix + subscription
}

// poison returns the name of a subscription's poison queue.
func (n names) poison(subscription string) string { return n.queue(subscription) + poisonSuffix }

// removed returns the name of the queue that has a message, for a while, for each time
// that a subscription was removed on purpose.
func (n names) removed(subscription string) string { return n.queue(subscription) + removedSuffix }

// lock returns the name of the queue whose active consumer works on the poison queue.
func (n names) lock(subscription string) string { return n.queue(subscription) + lockSuffix }

// delay returns the name of the exchange and queue of 2^k seconds.
func (n names) delay(k int) string { return fmt.Sprintf("%s%s%02d", n.prefix, delayName, k) }

// isDelay reports whether an exchange is that of a delay queue.
func (n names) isDelay(exchange string) bool { return strings.HasPrefix(exchange, n.prefix+delayName) }

const (
	poisonSuffix  = ":poison"
	removedSuffix = ":removed"
	lockSuffix    = ":lock"

	delayName = "tidings.delay."
)

// subscription returns the subscription whose queue has that name; false when it is
// another exchange's.
func (n names) subscription(queue string) (string, bool) {
	if n.prefix == "" && !strings.Contains(queue, slash) {
		return queue, true
	}
	return strings.CutPrefix(queue, cmp.Or(n.prefix, n.exchange+slash))
}

// maxName is the longest name of a queue or exchange (AMQP 0-9-1, section 3.1.4.1), in bytes.
const maxName = 255

// fault says why a subscription can't have that name; "" when it can.
func (n names) fault(subscription string) string {
	for _, suffix := range []string{poisonSuffix, removedSuffix, lockSuffix} {
		if strings.HasSuffix(subscription, suffix) {
			return fmt.Sprintf("ends in %q, as this transport's own queues do", suffix)
		}
	}
	switch {
	case n.tooLong(subscription):
		return fmt.Sprintf("has %d bytes; with the exchange %q RabbitMQ allows %d", len(subscription), n.exchange, n.limit(subscription))
	case strings.HasPrefix(n.queue(subscription), brokersPrefix):
		return `begins with "amq.", which RabbitMQ keeps for itself`
	case strings.HasPrefix(subscription, "tidings."):
		return `begins with "tidings.", as this transport's own queues do`
	}
	return ""
}

// limit returns the most bytes that a subscription's name may have, for its longest queue name to be valid.
func (n names) limit(subscription string) int {
	return maxName - len(removedSuffix) - (len(n.queue(subscription)) - len(subscription))
}

func (n names) tooLong(subscription string) bool { return len(subscription) > n.limit(subscription) }

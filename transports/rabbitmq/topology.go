package rabbitmq

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

const (
	// deliveryLimit is the broker's last resort against a message that ends every
	// process that it is delivered to. Consumers that are cancelled and channels that
	// are closed count as deliveries too, so it is far above what deploys bring about,
	// and the transport gives such a message up itself, see crashLimit.
	deliveryLimit = 2000

	// unlimited is for queues whose messages come and go without being handled. -1 would
	// be it, but makes 3.10 drop at the first return.
	unlimited = 1_000_000

	// poisonDeliveryLimit is not to be reached: before RabbitMQ 4.3, each look counts as a
	// delivery of each message. It is below 2^53, since definitions are JSON.
	poisonDeliveryLimit = 1_000_000_000_000_000

	// disconnectedTimeout is how long RabbitMQ 4.3 keeps what the consumers of a dead or
	// unreachable node hold, and a single active consumer its place. Its default is a
	// minute. Before 4.3, the broker did not wait.
	disconnectedTimeout = 5 * time.Second

	unroutedLength = 100_000     // messages kept of those without a queue, the newest
	removedExpiry  = time.Minute // of the notes of a removal
)

// poisonArgs are the arguments of a poison queue.
func (t *Transport) poisonArgs() amqp.Table {
	if t.cfg.QueueType == Classic {
		return amqp.Table{"x-queue-type": string(Classic)}
	}
	return amqp.Table{
		"x-queue-type": string(Quorum), "x-delivery-limit": int64(poisonDeliveryLimit),
		disconnectedArg: disconnectedTimeout.Milliseconds(),
	}
}

// subscriptionArgs are the arguments of a durable subscription's queue. What the broker
// gives up goes to the poison queue, at least once, which needs reject-publish:
// https://www.rabbitmq.com/docs/quorum-queues#activating-at-least-once-dead-lettering
func (t *Transport) subscriptionArgs(s transports.Subscription) amqp.Table {
	args := amqp.Table{
		"x-queue-type":              string(t.cfg.QueueType),
		"x-dead-letter-exchange":    "",
		"x-dead-letter-routing-key": t.names.poison(s.Name),
	}
	if t.cfg.QueueType == Quorum {
		args["x-delivery-limit"] = int64(deliveryLimit)
		args["x-dead-letter-strategy"] = "at-least-once"
		args["x-overflow"] = "reject-publish"
		args[disconnectedArg] = disconnectedTimeout.Milliseconds()
	}
	if s.Ordered {
		args["x-single-active-consumer"] = true
		if t.cfg.QueueType == Quorum {
			args[timeoutArg] = orderedTimeout.Milliseconds()
		}
	}
	return args
}

// topology declares on a channel, in the mode of the configuration, until the first
// error.
type topology struct {
	ch   *amqp.Channel
	mode TopologyMode
	err  error
}

func (d *topology) exchange(name, kind string, args amqp.Table) {
	switch {
	case d.err != nil || d.mode == Assume:
	case d.mode == Verify:
		d.err = explain(toDeclare, "exchange", name, d.ch.ExchangeDeclarePassive(name, kind, true, false, false, false, nil))
	default:
		d.err = explain(toDeclare, "exchange", name, d.ch.ExchangeDeclare(name, kind, true, false, false, false, args))
	}
}

func (d *topology) queue(name string, args amqp.Table) {
	var err error
	switch {
	case d.err != nil || d.mode == Assume:
		return
	case d.mode == Verify:
		_, err = d.ch.QueueDeclarePassive(name, true, false, false, false, nil)
	default:
		_, err = d.ch.QueueDeclare(name, true, false, false, false, args)
	}
	d.err = explain(toDeclare, "queue", name, err)
	if wrong, ok := errors.AsType[*TopologyError](d.err); ok {
		wrong.Wanted = describe(args)
	}
	if d.mode == Declare && isCode(err, amqp.NotFound) { // it exists then, or it would have been made
		d.err = &TopologyError{Kind: "queue", Name: name, Problem: "is on a node that is down, or has lost the majority of its nodes; start them", Err: err}
	}
}

// describe writes a declaration's arguments.
func describe(args amqp.Table) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(args)) {
		parts = append(parts, fmt.Sprintf("%s=%v", key, args[key]))
	}
	return strings.Join(parts, " ")
}

// transient declares a queue that lasts as long as the connection, whatever the mode.
func (d *topology) transient(name string, autoDelete bool) {
	if d.err == nil {
		_, err := d.ch.QueueDeclare(name, false, autoDelete, true, false, nil)
		d.err = explain(toDeclare, "queue", name, err)
	}
}

func (d *topology) bind(queue, key, exchange string, args amqp.Table) {
	if d.err == nil && d.mode == Declare {
		if err := d.ch.QueueBind(queue, key, exchange, false, args); err != nil {
			d.err = fmt.Errorf("bind to exchange %q: %w", exchange, explain(toBind, "queue", queue, err))
		}
	}
}

func (d *topology) bindExchange(to, key, from string, args amqp.Table) {
	if d.err == nil && d.mode == Declare {
		if err := d.ch.ExchangeBind(to, key, from, false, args); err != nil {
			d.err = fmt.Errorf("bind to exchange %q: %w", from, explain(toBind, "exchange", to, err))
		}
	}
}

// declareExchanges makes what publishers need.
func (t *Transport) declareExchanges(ch *amqp.Channel) error {
	d := &topology{ch: ch, mode: t.cfg.Topology}
	d.exchange(t.cfg.Exchange, amqp.ExchangeTopic, nil)
	d.unrouted(t.names.unrouted)
	d.exchange(t.names.retry, amqp.ExchangeDirect, amqp.Table{"alternate-exchange": t.names.unrouted})
	return d.err
}

// unrouted declares where messages end that their queue waits for no more. It has to
// take them: a delay queue that can't pass a message on stops for everybody.
func (d *topology) unrouted(name string) {
	d.exchange(name, amqp.ExchangeFanout, nil)
	d.queue(name, amqp.Table{
		"x-queue-type": string(Quorum), "x-delivery-limit": int64(unlimited), "x-max-length": int64(unroutedLength),
	})
	d.bind(name, "", name, nil)
}

// declareSubscription makes what a subscription needs, its bindings last: an event that
// reaches it has everything else to rely on. Queues that are older than some arguments are
// declared without those.
func (t *Transport) declareSubscription(ch *amqp.Channel, s transports.Subscription, older olderQueues) error {
	d := &topology{ch: ch, mode: t.cfg.Topology}
	queue := t.names.queue(s.Name)
	if s.Ephemeral {
		d.transient(t.names.poison(s.Name), false)
		d.transient(queue, true)
		d.mode = Declare // of the bindings, which go with the queue
	} else {
		d.queue(t.names.poison(s.Name), older.args(t.names.poison(s.Name), t.poisonArgs()))
		d.queue(queue, older.args(queue, t.subscriptionArgs(s)))
	}
	d.bind(queue, queue, t.names.retry, nil)
	for _, pattern := range s.Topics {
		d.bind(queue, pattern, t.cfg.Exchange, nil)
	}
	return d.err
}

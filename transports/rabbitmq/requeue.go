package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// Requeue sends a copy of msg to the queue of one subscription, after a delay that is
// rounded up to whole seconds, 30 days at most. It returns when the broker has confirmed
// it. Metadata that has grown over what a message may have is shortened, and named in
// the header "tidings_truncated", rather than that the message be lost.
func (t *Transport) Requeue(ctx context.Context, subscription string, msg *message.Message, delay time.Duration) error {
	if t.isClosed() {
		return closedError("rabbitmq: requeue")
	}
	if err := t.requeue(ctx, subscription, msg, delay); err != nil {
		return fmt.Errorf("rabbitmq: requeue to %s: %w", subscription, err)
	}
	return nil
}

func (t *Transport) requeue(ctx context.Context, subscription string, msg *message.Message, delay time.Duration) error {
	if err := t.canExist(subscription); err != nil {
		return err
	}
	m := t.copyOf(msg)
	if delay <= 0 {
		m.key = t.names.queue(subscription) // by the default exchange, which says so when there is no such queue
		return t.store(ctx, m)[0]
	}
	// The message leaves a delay queue without anyone who looks at it, so the subscription has
	// to be there now. One that is removed later finds it in tidings.unrouted.
	if err := t.mustExist(ctx, subscription); err != nil {
		return err
	}
	if err := t.ensureDelays(ctx); err != nil {
		return err
	}
	m.exchange, m.key = t.names.retry, t.names.queue(subscription)
	if err := t.names.delayBy(&m, delay); err != nil {
		return err
	}
	return t.store(ctx, m)[0]
}

// RequeueBatch sends copies of messages to the queue of one subscription, in order, and
// returns when the broker has confirmed them all. They are under way together, and not one
// confirm at a time. One that the broker refuses for now comes behind the others. After an
// error some of them may be in the queue; metadata is shortened as by Requeue.
func (t *Transport) RequeueBatch(ctx context.Context, subscription string, messages ...*message.Message) error {
	if t.isClosed() {
		return closedError("rabbitmq: requeue")
	}
	if err := t.requeueBatch(ctx, subscription, messages); err != nil {
		return fmt.Errorf("rabbitmq: requeue to %s: %w", subscription, err)
	}
	return nil
}

func (t *Transport) requeueBatch(ctx context.Context, subscription string, messages []*message.Message) error {
	if err := t.canExist(subscription); err != nil {
		return err
	}
	batch := make([]outgoing, len(messages))
	for i, msg := range messages {
		batch[i] = t.copyOf(msg)
		batch[i].key = t.names.queue(subscription)
	}
	return failuresOf(t.store(ctx, batch...))
}

// Poison sends a copy of msg to the poison queue of a subscription. It returns when the
// broker has confirmed it. As for Requeue, metadata is shortened where it has to be.
func (t *Transport) Poison(ctx context.Context, subscription string, msg *message.Message) error {
	if t.isClosed() {
		return closedError("rabbitmq: poison")
	}
	if err := t.poison(ctx, subscription, msg); err != nil {
		return fmt.Errorf("rabbitmq: poison queue of %s: %w", subscription, err)
	}
	return nil
}

func (t *Transport) poison(ctx context.Context, subscription string, msg *message.Message) error {
	if err := t.canExist(subscription); err != nil {
		return err
	}
	m := t.copyOf(msg)
	m.key = t.names.poison(subscription)
	return t.store(ctx, m)[0]
}

// copyOf makes the AMQP message of a message that was received before.
func (t *Transport) copyOf(msg *message.Message) outgoing {
	m := outgoing{msg: encode(msg)}
	m.msg.Body = append([]byte(nil), msg.Payload...) // the caller goes on with it, perhaps before it is sent
	shrink(m.msg.Headers, t.pub.frameSize())
	return m
}

// store publishes messages to queues that have to be there, and returns the result of
// each.
func (t *Transport) store(ctx context.Context, messages ...outgoing) []error {
	results := t.send(ctx, messages)
	for i, err := range results {
		switch m := messages[i]; {
		case !errors.Is(err, errReturned):
		case m.exchange == "":
			results[i] = fmt.Errorf("%w: there is no queue %q", transports.ErrNoSubscription, m.key)
		default:
			t.delays.forget() // somebody has deleted a delay queue
			results[i] = fmt.Errorf("exchange %q: %w", m.exchange, err)
		}
	}
	return results
}

// canExist returns [transports.ErrNoSubscription] for a name that is too long for a
// queue. The client ends the connection, which is everybody's, when it can't write one.
func (t *Transport) canExist(subscription string) error {
	if t.names.tooLong(subscription) {
		return fmt.Errorf("%w: a name has %d bytes at most", transports.ErrNoSubscription, t.names.limit(subscription))
	}
	return nil
}

// mustExist returns [transports.ErrNoSubscription] when a subscription has no queue.
func (t *Transport) mustExist(ctx context.Context, subscription string) error {
	if len(t.consumersOf(subscription)) > 0 { // its queue is declared again when it is lost
		return nil
	}
	_, err := t.inspect(ctx, t.names.queue(subscription))
	return err
}

// inspect returns how many messages are ready in a queue.
func (t *Transport) inspect(ctx context.Context, queue string) (int, error) {
	if err := t.con.start(ctx); err != nil {
		return 0, err
	}
	var ready int // written in the background still when ctx has ended
	err := t.con.run(ctx, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		ready = q.Messages
		return err
	})
	if isCode(err, amqp.NotFound) {
		return 0, fmt.Errorf("%w: there is no queue %q", transports.ErrNoSubscription, queue)
	}
	if err != nil {
		return 0, err
	}
	return ready, nil
}

// Depth counts what is ready in a subscription's queue and in its poison queue. The
// protocol does not tell what is in flight or waits in a delay queue: those are
// [transports.UnknownDepth]. A quorum queue that is too busy to answer, within 250 ms on
// RabbitMQ 3.10, is reported as empty.
func (t *Transport) Depth(ctx context.Context, subscription string) (transports.Depth, error) {
	if t.isClosed() {
		return transports.Depth{}, closedError("rabbitmq: depth")
	}
	err := t.canExist(subscription)
	ready := 0
	if err == nil {
		ready, err = t.inspect(ctx, t.names.queue(subscription))
	}
	if err != nil {
		return transports.Depth{}, fmt.Errorf("rabbitmq: depth of %s: %w", subscription, err)
	}
	poisoned, err := t.inspect(ctx, t.names.poison(subscription))
	if err != nil && !errors.Is(err, transports.ErrNoSubscription) {
		return transports.Depth{}, fmt.Errorf("rabbitmq: depth of %s: %w", subscription, err)
	}
	return transports.Depth{
		Ready: ready, Poisoned: poisoned,
		InFlight: transports.UnknownDepth, Delayed: transports.UnknownDepth,
	}, nil
}

// RemoveSubscription deletes a subscription's queue and poison queue with what is in
// them. Its consumers, in whichever process, see their channel closed; what waits for it
// in a delay queue ends in the queue "tidings.unrouted".
func (t *Transport) RemoveSubscription(ctx context.Context, name string) error {
	if t.isClosed() {
		return closedError("rabbitmq: remove subscription")
	}
	if t.names.tooLong(name) {
		return nil // such a subscription was never made
	}
	if err := t.con.start(ctx); err != nil {
		return err
	}
	fail := func(err error) error { return fmt.Errorf("rabbitmq: remove subscription %s: %w", name, err) }
	// Consumers are told that their queue is gone, and not why. This says why.
	note := t.names.removed(name)
	err := t.con.run(ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(note, true, false, false, false, amqp.Table{
			"x-queue-type": string(Quorum), "x-expires": t.removedExpiry.Milliseconds(), "x-message-ttl": t.removedExpiry.Milliseconds(),
		})
		return explain(toDeclare, "queue", note, err)
	})
	if err != nil {
		return fail(err)
	}
	if err := t.store(ctx, outgoing{key: note, msg: amqp.Publishing{DeliveryMode: amqp.Persistent}})[0]; err != nil {
		return fail(err)
	}
	consumers := t.consumersOf(name)
	err = t.con.run(ctx, func(ch *amqp.Channel) error {
		for _, queue := range []string{t.names.queue(name), t.names.poison(name), t.names.lock(name)} { // RabbitMQ makes no error of one that is not there
			if _, err := ch.QueueDelete(queue, false, false, false); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fail(err)
	}
	for _, c := range consumers { // the broker tells those of other processes
		c.log.Info("the subscription was removed")
		c.removed()
	}
	sleep(ctx, newsOfDeletion) // the caller may subscribe again at once
	return nil
}

// consumersOf returns this transport's consumers of a subscription.
func (t *Transport) consumersOf(subscription string) []*consumer {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []*consumer
	for c := range t.consumers {
		if c.sub.Name == subscription {
			found = append(found, c)
		}
	}
	return found
}

// newsOfDeletion is how long the broker may take to tell the consumers and publishers of a
// queue that it is gone. The news concerns a channel's use of the name, so there should be
// no new queue of that name before.
const newsOfDeletion = 250 * time.Millisecond

// removals returns how often a subscription was removed lately. A consumer whose queue
// is gone compares it with what it was when it began. A queue that is too busy to answer is
// reported as empty, so what is empty is asked again.
func (t *Transport) removals(ctx context.Context, subscription string) (n int, err error) {
	for range 4 {
		if n, err = t.inspect(ctx, t.names.removed(subscription)); n > 0 || err != nil {
			break
		}
		sleep(ctx, firstDelay)
	}
	if errors.Is(err, transports.ErrNoSubscription) {
		return 0, nil
	}
	return n, err
}

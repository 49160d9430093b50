package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// Poisoned lists a poison queue, as it was when the iteration began. It takes the
// messages without acknowledging them, gives them back, and holds them in memory
// meanwhile; one caller at a time does that, and others wait. Messages that the broker
// itself has given up, see the package's documentation, are listed with that as their
// reason.
func (t *Transport) Poisoned(ctx context.Context, subscription string) iter.Seq2[transports.Poisoned, error] {
	return func(yield func(transports.Poisoned, error) bool) {
		var list []transports.Poisoned
		seen := make(map[transports.EventKey]bool)
		err := t.walk(ctx, subscription, func(_ *walker, chunk []amqp.Delivery) error {
			for i := range chunk {
				p := t.readPoisoned(&chunk[i], subscription)
				key := p.Key()
				if seen[key] && key.ID != "" { // without an id they may be different events
					continue
				}
				seen[key] = true
				list = append(list, p)
			}
			return nil
		})
		for _, p := range list {
			if !yield(p, nil) {
				return
			}
		}
		if err != nil {
			yield(transports.Poisoned{}, err)
		}
	}
}

// readPoisoned reads a message of a poison queue.
func (t *Transport) readPoisoned(d *amqp.Delivery, subscription string) transports.Poisoned {
	msg := decode(d, t.cfg.Exchange)
	death, dead := lastDeath(d.Headers)
	for key := range msg.Metadata {
		if brokers(key) {
			delete(msg.Metadata, key)
		}
	}
	if dead && death.topic != "" && transports.Topic(msg) == "" {
		transports.SetTopic(msg, death.topic)
	}
	p := transports.ReadPoisoned(msg)
	if p.Reason == "" && dead {
		p.Reason = fmt.Sprintf("given up by the broker (%s)", death.reason)
		if death.reason == "delivery_limit" { // and not expired, which a publisher can ask for
			p.Reason += fmt.Sprintf(": delivered more than %d times and settled by nobody", deliveryLimit)
		}
		p.LastFailure, p.Subscription, p.Topic = death.at, subscription, transports.Topic(msg)
		transports.WritePoisoned(p)
	}
	return p
}

// death is an entry of the header x-death: https://www.rabbitmq.com/docs/dlx#effects
type death struct {
	reason, topic string
	at            time.Time
}

func lastDeath(headers amqp.Table) (death, bool) {
	list, _ := headers["x-death"].([]any)
	if len(list) == 0 {
		return death{}, false
	}
	entry, _ := list[0].(amqp.Table)
	d := death{reason: text(entry["reason"])}
	d.at, _ = entry["time"].(time.Time)
	if keys, _ := entry["routing-keys"].([]any); len(keys) > 0 {
		d.topic = text(keys[0])
	}
	return d, true
}

// RequeuePoisoned sends copies of events, confirmed, to the subscription that failed and
// takes them out of its poison queue afterwards. With no subscription any more the error
// is [transports.ErrNoSubscription], and they stay.
func (t *Transport) RequeuePoisoned(ctx context.Context, subscription string, keys ...transports.EventKey) (int, error) {
	return t.take(ctx, subscription, keys, func(chunk []amqp.Delivery) []error {
		messages := make([]outgoing, len(chunk))
		for i := range chunk {
			msg := t.readPoisoned(&chunk[i], subscription).Message
			transports.StripHeaders(msg.Metadata)
			messages[i] = t.copyOf(msg)
			messages[i].key = t.names.queue(subscription)
		}
		return t.store(ctx, messages...)
	})
}

// DiscardPoisoned deletes events from a poison queue.
func (t *Transport) DiscardPoisoned(ctx context.Context, subscription string, keys ...transports.EventKey) (int, error) {
	return t.take(ctx, subscription, keys, func(chunk []amqp.Delivery) []error { return make([]error, len(chunk)) })
}

// take removes the named events from a poison queue, each copy after f has dealt with
// it, and returns how many events they were.
func (t *Transport) take(ctx context.Context, subscription string, keys []transports.EventKey, f func([]amqp.Delivery) []error) (int, error) {
	if t.isClosed() {
		return 0, closedError("rabbitmq: poison queue")
	}
	wanted := make(map[transports.EventKey]bool, len(keys))
	for _, key := range keys {
		wanted[key] = true
	}
	if len(wanted) == 0 {
		return 0, nil
	}
	taken := make(map[transports.EventKey]bool, len(keys))
	err := t.walk(ctx, subscription, func(w *walker, chunk []amqp.Delivery) error {
		var chosen []amqp.Delivery
		for i := range chunk {
			key := transports.KeyOf(decode(&chunk[i], t.cfg.Exchange))
			// What has come while we were at it may be an event of ours that has failed again.
			// To move it again, and again, would be to go round with it.
			if wanted[key] && !(taken[key] && w.taken > w.expected) {
				chosen = append(chosen, chunk[i])
			}
		}
		var faults []error
		for i, err := range f(chosen) {
			if err == nil {
				err = w.ack(chosen[i].DeliveryTag)
			}
			if err != nil {
				faults = append(faults, err)
				continue
			}
			taken[transports.KeyOf(decode(&chosen[i], t.cfg.Exchange))] = true
		}
		return errors.Join(append(faults, w.applied())...)
	})
	return len(taken), err
}

const (
	walkChunk = 100              // messages looked at, and moved, together
	stalled   = 10 * time.Second // how long a message, which is there, may take to come
)

// walk calls f with the messages of a poison queue, oldest first and some at a time.
// What f does not acknowledge goes back to its place at the end.
func (t *Transport) walk(ctx context.Context, subscription string, f func(*walker, []amqp.Delivery) error) error {
	if t.isClosed() {
		return closedError("rabbitmq: poison queue")
	}
	if err := t.walkLocked(ctx, subscription, f); err != nil {
		return fmt.Errorf("rabbitmq: poison queue of %s: %w", subscription, err)
	}
	return nil
}

func (t *Transport) walkLocked(ctx context.Context, subscription string, f func(*walker, []amqp.Delivery) error) error {
	if err := t.canExist(subscription); err != nil {
		return err
	}
	if err := t.con.start(ctx); err != nil {
		return err
	}
	unlock, err := t.lock(ctx, subscription)
	if err != nil {
		return err
	}
	defer unlock()
	w := walker{queue: t.names.poison(subscription)}
	if w.expected, err = t.inspect(ctx, w.queue); err != nil {
		return err
	}
	w.ch, err = t.con.open(ctx, func(ch *amqp.Channel) (err error) {
		if w.expected == 0 {
			return nil
		}
		if err := ch.Qos(min(w.expected, maxPrefetch), 0, false); err != nil {
			return err
		}
		w.deliveries, err = ch.Consume(w.queue, walkerTag, false, false, false, false, nil)
		return err
	})
	if err != nil {
		return err
	}
	for err == nil && (!w.done || len(w.more) > 0) {
		var chunk []amqp.Delivery
		if chunk, err = w.next(ctx); len(chunk) > 0 {
			err = errors.Join(err, f(&w, chunk))
		}
	}
	// The queue does this after the acknowledgements and before it answers the last call,
	// so the next one to look finds everything in its place.
	return errors.Join(err, w.ch.Nack(all, true, true), w.ch.Cancel(walkerTag, false), w.ch.Close())
}

const (
	walkerTag = "tidings"
	all       = 0 // a delivery tag: everything on the channel (AMQP 0-9-1, basic.ack.delivery-tag)
)

// walker takes the messages of a poison queue: as many as are expected by consuming,
// which is fast, and then singly, until the broker says that it is empty. The expectation
// alone won't do: it is the answer of a queue that, when it is busy, answers 0.
type walker struct {
	queue      string
	ch         *amqp.Channel
	deliveries <-chan amqp.Delivery // nil when all of them are taken
	expected   int
	taken      int
	done       bool
	acks       int             // since applied was called
	more       []amqp.Delivery // that came while it was called
}

// ackWindow is how many acknowledgements are sent before the queue is waited for. A
// channel of the broker has at most 32 commands of a quorum queue under way, keeps those
// beyond, and drops them when it is closed (rabbit_fifo_client, SOFT_LIMIT): what was
// acknowledged so would be in the poison queue again.
const ackWindow = 16

// ack acknowledges a message, for the queue to do so before long.
func (w *walker) ack(tag uint64) error {
	if err := w.ch.Ack(tag, false); err != nil {
		return err
	}
	if w.acks++; w.acks < ackWindow {
		return nil
	}
	return w.applied()
}

// applied returns when the queue has taken all acknowledgements: it answers basic.get
// after them. What that gets is one message more to look at.
func (w *walker) applied() error {
	if w.acks == 0 {
		return nil
	}
	w.acks = 0
	d, ok, err := w.ch.Get(w.queue, false)
	if err == nil && ok {
		w.more = append(w.more, d)
	}
	return err
}

// next returns some more messages.
func (w *walker) next(ctx context.Context) (chunk []amqp.Delivery, err error) {
	timer := time.NewTimer(stalled)
	defer timer.Stop()
	if len(w.more) > 0 {
		chunk, w.more = w.more, nil
		w.taken += len(chunk)
		return chunk, nil
	}
	for ; len(chunk) < walkChunk; w.taken++ {
		if w.deliveries == nil {
			d, ok, err := w.ch.Get(w.queue, false)
			if w.done = !ok; err != nil || !ok {
				return chunk, err
			}
			chunk = append(chunk, d)
			continue
		}
		if w.taken == min(w.expected, maxPrefetch) {
			// Where f has acknowledged some, more have come in their place.
			if err := w.ch.Cancel(walkerTag, false); err != nil {
				return chunk, err
			}
		}
		select {
		case d, ok := <-w.deliveries:
			switch {
			case ok:
				chunk = append(chunk, d)
			case w.taken < min(w.expected, maxPrefetch):
				return chunk, errLost
			default:
				w.deliveries = nil
				w.taken--
			}
		case <-ctx.Done():
			return chunk, ended(ctx, "waiting for a poisoned message")
		case <-timer.C:
			return chunk, errors.New("the broker does not deliver what is there")
		}
	}
	return chunk, nil
}

// lock makes the caller the only one, on this broker, who takes messages from a
// subscription's poison queue: they are out of others' sight meanwhile. It is held by a
// queue of the connection's own, which ends with its channel.
func (t *Transport) lock(ctx context.Context, subscription string) (unlock func(), err error) {
	name := t.names.lock(subscription)
	mine, _ := t.locks.LoadOrStore(name, newTurn()) // the broker takes all of a transport for one
	held := mine.(turn)
	if err := held.take(ctx, "waiting for another look at the poison queue to end"); err != nil {
		return nil, err
	}
	for {
		// Its consumer makes the queue go with the channel, also when ctx ends in the middle.
		ch, err := t.con.open(ctx, func(ch *amqp.Channel) error {
			d := topology{ch: ch}
			d.transient(name, true)
			if d.err == nil {
				_, d.err = ch.Consume(name, "", true, true, false, false, nil)
			}
			return d.err
		})
		switch {
		case err == nil:
			return func() {
				_, _ = ch.QueueDelete(name, false, false, false) // before another asks; else it goes with the channel
				_ = ch.Close()                                   // it may be lost already
				held.leave()
			}, nil
		case !isCode(err, amqp.ResourceLocked) && !isCode(err, amqp.NotFound): // locked, or about to be no more
			held.leave()
			return nil, err
		}
		if !sleep(ctx, 50*time.Millisecond) {
			held.leave()
			return nil, ended(ctx, "waiting for another process to be done with the poison queue")
		}
	}
}

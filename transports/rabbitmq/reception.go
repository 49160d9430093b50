package rabbitmq

import (
	"context"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// reception is a consumer's life on one channel.
type reception struct {
	ch         *amqp.Channel
	tag        string     // of the consumer
	args       amqp.Table // of the consumer
	acks       *acks
	deliveries <-chan amqp.Delivery
	careful    bool // with a prefetch of 1
	reattaching
	gaveUp   bool          // a message of an ordered subscription
	returned chan struct{} // a signal that an ordered subscription has to consume again

	cancelled <-chan string
	closed    <-chan *amqp.Error
	watching  sync.WaitGroup // watch
	lost      chan struct{}  // closed when the channel is, or when the broker has cancelled the consumer
	why       error          // written before lost is closed
}

// orderedTimeout is how long a message of an ordered subscription may be unsettled. When the
// broker takes a message back, RabbitMQ 4.3 lets another consumer go on with the next ones
// while this process still holds some: an order is lost. A paused subscription returns what
// it holds after 15 minutes; handlers may take long.
const orderedTimeout = 24 * time.Hour

// canCount reports whether the broker counts the deliveries of the queue's messages.
func (c *consumer) canCount() bool { return !c.sub.Ephemeral && c.t.cfg.QueueType == Quorum }

// beginsCarefully reports whether to take one message at a time at first. An ordered
// subscription does not: the broker puts what is given back behind all else that was,
// so its order is kept only if a consumer takes, and gives back, as many as the one before.
func (c *consumer) beginsCarefully() bool {
	return c.canCount() && !c.sub.Ordered && c.sub.Concurrency > 1
}

// consume declares the subscription and begins to consume.
func (c *consumer) consume(ctx context.Context, careful bool) (*reception, error) {
	if err := c.t.con.start(ctx); err != nil {
		return nil, err
	}
	for {
		r, err := c.open(ctx, careful)
		switch {
		case err == nil:
			c.warnOfOlder()
			return r, nil
		case !c.declareAsOlder(err):
			return nil, err
		}
	}
}

func (c *consumer) open(ctx context.Context, careful bool) (*reception, error) {
	r := &reception{
		tag: c.sub.Name, args: c.consumeArgs(), careful: careful,
		returned: make(chan struct{}, 1), lost: make(chan struct{}),
	}
	_, err := c.t.con.open(ctx, func(ch *amqp.Channel) error {
		if err := c.t.declareExchanges(ch); err != nil {
			return err
		}
		if err := c.t.declareSubscription(ch, c.sub, c.older); err != nil {
			return err
		}
		if err := c.declareDelays(ctx, ch); err != nil {
			return err
		}
		r.ch, r.reattaching = ch, c.t.con.reattaches()
		r.closed = ch.NotifyClose(make(chan *amqp.Error, 1))
		r.cancelled = ch.NotifyCancel(make(chan string, 1))
		return r.consume(c.t.names.queue(c.sub.Name), c.sub.Concurrency)
	})
	if err != nil {
		return nil, err
	}
	r.acks = newAcks(r.ch)
	r.watching.Go(r.watch)
	return r, nil
}

// declareDelays makes the delay queues before the first message fails. Failures come when
// something breaks, and a broker that dies within a second of making a queue may lose it.
func (c *consumer) declareDelays(ctx context.Context, ch *amqp.Channel) error {
	if c.sub.Ephemeral {
		return nil
	}
	return c.t.delays.do(ctx, func() error { return c.t.declareDelays(ch) })
}

// consumeArgs are the arguments of the subscription's consumers. Brokers before 4.3 ignore
// the timeout; there, an ordered queue has it as its own argument.
func (c *consumer) consumeArgs() amqp.Table {
	timeout := c.t.consumerTimeout
	if c.sub.Ordered && timeout == 0 {
		timeout = orderedTimeout
	}
	if timeout == 0 {
		return nil
	}
	return amqp.Table{"x-consumer-timeout": timeout.Milliseconds()}
}

// maxPrefetch is what the protocol can say, in 16 bits.
const maxPrefetch = 1<<16 - 1

// consume makes r's channel consume with the prefetch of its mode.
func (r *reception) consume(queue string, prefetch int) (err error) {
	if r.careful {
		prefetch = 1
	}
	if err := r.ch.Qos(min(prefetch, maxPrefetch), 0, false); err != nil {
		return fmt.Errorf("set prefetch: %w", err)
	}
	if r.deliveries, err = r.ch.Consume(queue, r.tag, false, false, false, false, r.args); err != nil {
		return explain(toConsume, "queue", queue, err)
	}
	return r.prevent(r.ch)
}

// widen takes many messages at a time from now on, which a consumer can't change for
// itself: another one takes its place.
func (r *reception) widen(queue string, prefetch int) error {
	if err := r.ch.Cancel(r.tag, false); err != nil {
		return err
	}
	if err := r.allow(r.ch); err != nil {
		return err
	}
	r.tag += "+"
	r.careful = false
	return r.consume(queue, prefetch)
}

// watch closes lost, and reads what the client tells until the channel is closed: the client
// waits for that.
func (r *reception) watch() {
	lose := func(why error) {
		if !r.isLost() {
			r.why = why
			close(r.lost)
		}
	}
	for cancelled := r.cancelled; ; {
		select {
		case _, ok := <-cancelled:
			if !ok {
				cancelled = nil
				continue
			}
			lose(errCancelled)
		case err, ok := <-r.closed:
			if !ok {
				lose(errLost)
				return
			}
			lose(err)
		}
	}
}

// isLost reports whether nothing that the broker has delivered here is this consumer's
// any more.
func (r *reception) isLost() bool {
	select {
	case <-r.lost:
		return true
	default:
		return false
	}
}

// reason returns why the channel delivers no more. It is for one that does not, of which the
// client is about to tell why.
func (r *reception) reason() error {
	<-r.lost
	return r.why
}

// close tells the broker what is settled, waits until the queue has done that, and closes
// the channel, which returns the rest. RabbitMQ 4.3 does not count what is nacked as it counts
// what a lost channel returns. An ordered subscription leaves all to the channel, which
// returns it in order.
func (c *consumer) close(r *reception) {
	r.acks.close()
	sent := r.acks.flush()
	if !c.sub.Ordered {
		_ = r.ch.Cancel(r.tag, false) // or what is nacked would come here again
	}
	// Where a broker cancels only what has lost its queue, nothing is left to be applied.
	if sent > 0 && c.canCount() && !(r.isLost() && (c.sub.Ordered || bool(r.reattaching))) {
		r.settled(c.t.names.queue(c.sub.Name))
	}
	if !c.sub.Ordered {
		_ = r.ch.Nack(allTags, true, true)
	}
	_ = r.ch.Close() // it may be lost already
	r.watching.Wait()
}

// settled returns when the queue has applied all acknowledgements. A channel of the broker
// has at most 32 commands of a quorum queue under way, keeps those beyond, and drops them
// when it is closed (rabbit_fifo_client, SOFT_LIMIT): those messages would come again. To
// consume and to cancel are commands that the channel waits for. The first one comes after
// those under way, the channel sends what it has kept when it hears that they are applied,
// which is before the second is answered, and the third comes after that.
//
// The consumer is another one, the last in line, so that it takes a message, and returns it
// with the rest, only where there is nobody else to take it. One that was cancelled would
// not do: it takes messages again. Nor would basic.get, which a single active consumer
// forbids.
func (r *reception) settled(queue string) {
	if r.allow(r.ch) != nil || r.ch.Qos(1, 0, false) != nil {
		return
	}
	tag := r.tag + "-"
	for range 2 {
		_, err := r.ch.Consume(queue, tag, false, false, false, false, amqp.Table{"x-priority": int32(lastInLine)})
		if err != nil || r.ch.Cancel(tag, false) != nil {
			return
		}
		tag += "-"
	}
}

// allTags is a delivery tag: everything on the channel (AMQP 0-9-1, basic.nack.delivery-tag).
const allTags = 0

// lastInLine is the priority of a consumer behind all others.
const lastInLine = -1 << 15

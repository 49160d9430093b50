package memory

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// maxInFlight bounds the room that is made for deliveries, for who says "unlimited"
// by a huge concurrency.
const maxInFlight = 1 << 16

// consumer delivers from one queue to one channel.
//
//	run ──► next ──► out ──► receiver
//	         ▲                  │ tells; else watch, a goroutine for each message in flight
//	         └── settled ◄── settle
//
// What the receiver has settled is collected and taken off the queue by run, all that
// has come together: one turn with the lock, and one wake-up of run and of a waiting
// publisher, for many messages.
type consumer struct {
	queue   *queue
	limit   int                   // most in flight
	ordered bool                  // takes nothing while another consumer was here first
	out     chan *message.Message // with room for limit, so that deliveries need not wait for each other
	batch   []entry               // being delivered by run
	told    bool                  // the receiver calls settle

	intake     context.Context    //nolint:containedctx // the consumer's life, not a call's: ends when no more is to be delivered
	stopIntake context.CancelFunc // safe under Broker.mu: it runs nothing of ours
	delivery   context.Context    //nolint:containedctx // what its messages carry; ends with the transport

	wakeup   chan struct{} // one token: there may be something to deliver, or to take off the queue
	inFlight int           // written by run, under Broker.mu
	watching sync.WaitGroup

	settleMu  sync.Mutex // guards unsettled and settled; may be taken under Broker.mu
	unsettled map[*message.Message]entry
	settled   []verdict
	verdicts  []verdict // being taken off the queue by run
}

// verdict is the receiver's, on an entry in flight.
type verdict struct {
	entry entry
	acked bool
}

type queueKey struct{}

// publisherQueue returns the queue whose handler ctx belongs to, or nil.
func (b *Broker) publisherQueue(ctx context.Context) *queue {
	if q, ok := ctx.Value(queueKey{}).(*queue); ok && q.broker == b {
		return q
	}
	return nil
}

func (c *consumer) wakeUp() {
	select {
	case c.wakeup <- struct{}{}:
	default: // a token is there already, and whoever takes it looks at everything
	}
}

// run delivers until intake ends, waits until what is in flight is settled,
// leaves the queue, and closes the channel.
func (c *consumer) run() {
	defer close(c.out)
	defer c.leave()
	for c.next() {
		for _, e := range c.batch {
			msg := e.rec.message()
			msg.SetContext(c.delivery)
			c.settleMu.Lock()
			c.unsettled[msg] = e
			c.settleMu.Unlock()
			if !c.told {
				c.watching.Go(func() { c.watch(msg) })
			}
			c.out <- msg // does not block: there is room for as many as can be in flight
		}
		clear(c.batch) // lets the records be collected
	}
	c.takeBack()
	for !c.finished() {
		select {
		case <-c.wakeup:
		case <-c.delivery.Done():
			c.abandon()
		}
	}
	c.watching.Wait()
}

// next takes what can be delivered into batch, waiting for the first, and reports
// false when intake has ended.
func (c *consumer) next() bool {
	q := c.queue
	if c.inFlight == c.limit && !c.sleep() { // the lock is worth it when something was settled
		return false
	}
	for c.intake.Err() == nil {
		c.batch = c.batch[:0]
		q.broker.mu.Lock()
		c.settleAll()
		if len(q.holds) == 0 && c.mayTake() {
			for c.inFlight < c.limit && q.ready.n > 0 {
				c.batch = append(c.batch, q.ready.popFront())
				c.inFlight++
			}
		}
		q.broker.mu.Unlock()
		if len(c.batch) > 0 {
			return true
		}
		if !c.sleep() {
			return false
		}
	}
	return false
}

// sleep waits until there is something to do, and reports false when intake has ended.
func (c *consumer) sleep() bool {
	select {
	case <-c.wakeup:
		c.gather()
		return true
	case <-c.intake.Done():
		return false
	}
}

// gather lets receivers that are about to settle come along, for as long as more of them
// do: each wake-up of run, and of a publisher that waits for room, is then for several.
func (c *consumer) gather() {
	for seen := -1; ; {
		runtime.Gosched()
		c.settleMu.Lock()
		n := len(c.settled)
		c.settleMu.Unlock()
		if n <= seen || n >= c.limit/2 {
			return
		}
		seen = n
	}
}

// finished takes what is settled off the queue and reports whether nothing is in flight
// any more.
func (c *consumer) finished() bool {
	b := c.queue.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	c.settleAll()
	return c.inFlight == 0
}

// settleAll ends the flight of every settled entry: it leaves the queue, or goes back to
// its place. Called with Broker.mu held.
func (c *consumer) settleAll() {
	c.settleMu.Lock()
	c.verdicts, c.settled = c.settled, c.verdicts[:0]
	c.settleMu.Unlock()
	for _, v := range c.verdicts {
		c.inFlight--
		switch {
		case v.acked:
			c.queue.release()
		case c.intake.Err() == nil:
			c.queue.nacked(v.entry)
		default: // the consumer ends, which is not the message's fault
			c.queue.putBack(v.entry)
		}
	}
	clear(c.verdicts) // lets the records be collected
}

// takeBack returns what was delivered and nobody has received.
func (c *consumer) takeBack() {
	for {
		select {
		case msg := <-c.out:
			msg.Nack()
			c.settle(msg)
		default:
			return
		}
	}
}

// mayTake reports whether c is not on stand-by, and its order does not wait for a message that
// backs off. Called with Broker.mu held.
func (c *consumer) mayTake() bool {
	return !c.ordered || c.queue.consumers[0] == c && c.queue.backingOff == 0
}

// watch waits for the verdict of a receiver that does not tell it.
func (c *consumer) watch(msg *message.Message) {
	select {
	case <-msg.Acked():
	case <-msg.Nacked():
	case <-c.delivery.Done():
		return
	}
	c.settle(msg)
}

// settle leaves the verdict on a message to run. One that is known already, or given by
// the end of delivery, stands.
func (c *consumer) settle(msg *message.Message) {
	c.settleMu.Lock()
	e, ok := c.unsettled[msg]
	if ok {
		delete(c.unsettled, msg)
		c.settled = append(c.settled, verdict{e, acked(msg)})
	}
	c.settleMu.Unlock()
	if ok {
		c.wakeUp()
	}
}

// abandon settles what the receiver has not.
func (c *consumer) abandon() {
	c.settleMu.Lock()
	defer c.settleMu.Unlock()
	for msg, e := range c.unsettled { // an acknowledgement that came before the end counts
		c.settled = append(c.settled, verdict{e, acked(msg)})
	}
	clear(c.unsettled)
}

// acked reports whether a message is acknowledged; what is not goes back.
func acked(msg *message.Message) bool {
	select {
	case <-msg.Acked():
		return true
	default:
		return false
	}
}

// subscribe attaches a new consumer. delivery is the context of its messages
// without the queue; its end ends intake too. onEnd is called after the last
// message was settled and the channel closed.
func (b *Broker) subscribe(intake, delivery context.Context, s transports.Subscription, told bool, onEnd func()) (*consumer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q, taken := b.queues[s.Name]; taken && (s.Ephemeral || q.ephemeral) {
		return nil, fmt.Errorf("subscription %q exists already, and an ephemeral one is not shared", s.Name)
	}
	q := b.declare(s.Name, s.Topics)
	q.ephemeral = s.Ephemeral
	limit := min(s.Concurrency, maxInFlight)
	c := &consumer{
		queue:     q,
		limit:     limit,
		ordered:   s.Ordered,
		told:      told,
		out:       make(chan *message.Message, limit),
		delivery:  context.WithValue(delivery, queueKey{}, q),
		wakeup:    make(chan struct{}, 1),
		unsettled: make(map[*message.Message]entry),
	}
	c.intake, c.stopIntake = context.WithCancel(intake)
	unhook := context.AfterFunc(c.delivery, c.stopIntake)
	q.consumers = append(q.consumers, c)
	c.wakeUp()
	go func() {
		c.run()
		unhook()
		c.stopIntake()
		onEnd()
	}()
	return c, nil
}

// leave takes c off its queue, when nothing of it is in flight any more.
func (c *consumer) leave() {
	q := c.queue
	b := q.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	q.consumers = slices.DeleteFunc(q.consumers, func(o *consumer) bool { return o == c })
	q.wake() // who stood by may be the first now
	if q.ephemeral && !q.gone {
		b.remove(q)
	}
}

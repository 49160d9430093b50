package rabbitmq

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
)

// flight is a delivery that the receiver has.
type flight struct {
	r *reception
	d *amqp.Delivery
}

// takeOff begins the flight of a message, before the receiver can settle it.
func (c *consumer) takeOff(msg *message.Message, f flight) {
	c.inFlight.Add(1)
	if c.told {
		c.flightMu.Lock()
		defer c.flightMu.Unlock()
		c.flights[msg] = f
	}
}

// withdraw ends the flight of a message that the receiver did not take.
func (c *consumer) withdraw(msg *message.Message) {
	c.inFlight.Add(-1)
	if c.told {
		c.flightMu.Lock()
		defer c.flightMu.Unlock()
		delete(c.flights, msg)
	}
}

// settle ends the flight of a message that the receiver has settled. What is told twice, or
// when nobody waits for it any more, has no effect.
func (c *consumer) settle(msg *message.Message) {
	c.flightMu.Lock()
	defer c.flightMu.Unlock()
	f, ok := c.flights[msg]
	if !ok {
		return
	}
	delete(c.flights, msg)
	select {
	case <-msg.Acked():
		c.ack(f)
	default:
		c.watchers.Go(func() { c.nack(f) }) // may wait for the broker
	}
}

// watch waits for the verdict of a receiver that does not tell it.
func (c *consumer) watch(msg *message.Message, f flight) {
	select {
	case <-msg.Acked():
		c.ack(f)
	case <-msg.Nacked():
		c.nack(f)
	case <-c.base.Done(): // the closed channel gives it back
		c.landed()
	}
}

func (c *consumer) ack(f flight) {
	c.progress.Store(true)
	c.suspects.survived(deliveries(f.d))
	f.r.acks.ack(f.d.DeliveryTag)
	c.landed()
}

func (c *consumer) nack(f flight) {
	c.suspects.survived(deliveries(f.d) + 1) // the count that it comes back with
	c.giveBack(f.r, f.d, refused)
	c.landed()
}

// landed tells that a message is not in flight any more.
func (c *consumer) landed() {
	c.inFlight.Add(-1)
	select {
	case c.settled <- struct{}{}:
	default:
	}
}

// land waits for nothing that is in flight but for what is being given back: either there
// is nothing, or the channel is closed.
func (c *consumer) land() {
	c.flightMu.Lock()
	clear(c.flights)
	c.flightMu.Unlock()
	c.watchers.Wait()
}

// returning is how a message goes back to its queue.
type returning bool

const (
	refused   returning = true  // by a receiver: the broker counts it
	untouched returning = false // no receiver has had it
)

// giveBack returns a message to its queue, to its old place if its count allows. That of
// an ordered subscription is left to the end of the channel, which gives back all that is
// unsettled in its order: by itself it would come behind those that are here already.
//
// A refused message is rejected: a nacked one is not counted from RabbitMQ 4.3 on, so it
// would go round as fast as the network allows. Once the intake has ended it does not come
// back here, and a shutdown is not the message's fault.
func (c *consumer) giveBack(r *reception, d *amqp.Delivery, how returning) {
	if c.sub.Ordered {
		select {
		case r.returned <- struct{}{}:
		default:
		}
		return
	}
	// Where the broker does not count, the second time is late enough: a message that is
	// nacked each time must not go round as fast as the network allows.
	if c.intake.Err() != nil {
		how = untouched
	}
	again := !c.canCount() && d.Redelivered && how == refused
	if (again || deliveries(d) >= renewAfter) && c.renew(r, d) {
		r.acks.ack(d.DeliveryTag)
		return
	}
	r.acks.giveBack(d.DeliveryTag, how)
}

// renew sends a copy of a message, which comes in a while and whose count begins anew.
// While the broker takes no messages, it waits: a nack would count, and poison a message
// whose process lives. Where only the delay tier takes none, the copy does without.
func (c *consumer) renew(r *reception, d *amqp.Delivery) bool {
	for delay := patience; !r.ch.IsClosed(); delay = 0 { // once closed, the message comes again, and the copy would be one more
		ctx, cancel := context.WithTimeout(c.base, 10*patience)
		err := c.t.requeue(ctx, c.sub.Name, decode(d, c.t.cfg.Exchange), delay)
		cancel()
		if err == nil {
			return true
		}
		if c.intake.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	return false
}

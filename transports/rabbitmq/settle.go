package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
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
	f.r.acks.ack(f.d.DeliveryTag)
	c.landed()
}

func (c *consumer) nack(f flight) {
	c.giveBack(f.r, f.d)
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

// giveBack returns a message to its queue, to its old place if its count allows. That of
// an ordered subscription is left to the end of the channel, which gives back all that is
// unsettled in its order: by itself it would come behind those that are here already.
func (c *consumer) giveBack(r *reception, d *amqp.Delivery) {
	if c.sub.Ordered {
		select {
		case r.returned <- struct{}{}:
		default:
		}
		return
	}
	// Where the broker does not count, the second time is late enough: a message that is
	// nacked each time must not go round as fast as the network allows.
	again := !c.canCount() && d.Redelivered && c.intake.Err() == nil
	if (again || deliveries(d) >= renewAfter) && c.renew(r, d) {
		r.acks.ack(d.DeliveryTag)
		return
	}
	r.acks.nack(d.DeliveryTag)
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

// giveUp poisons a message that seems to end the processes that handle it.
func (c *consumer) giveUp(r *reception, d *amqp.Delivery, n int) outcome {
	msg := decode(d, c.t.cfg.Exchange)
	host, _ := os.Hostname() // empty when unknown
	p := transports.ReadPoisoned(msg)
	p.Reason = fmt.Sprintf("delivered %d times and settled by nobody: the process that handles it seems to die of it", n)
	p.LastFailure = time.Now()
	p.Subscription, p.Topic, p.Host = c.sub.Name, transports.Topic(msg), host
	transports.WritePoisoned(p)
	for {
		err := c.t.poison(c.base, c.sub.Name, msg)
		if err == nil {
			c.log.Error("a message is poisoned: the processes that handle it seem to die of it", slog.String("event_id", msg.UUID), slog.Int("deliveries", n))
			r.acks.ack(d.DeliveryTag)
			r.gaveUp = true
			return goOn
		}
		c.log.Error("poison queue can't be written; the subscription waits until it can", slog.Any("error", err))
		timer := time.NewTimer(patience)
		select {
		case <-timer.C:
		case <-c.intake.Done():
			return intakeEnded
		case <-c.base.Done():
			return killed
		case r.cause = <-r.lost:
			return channelLost
		}
	}
}

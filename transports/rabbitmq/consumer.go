package rabbitmq

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// consumer is one Subscribe.
//
//	careful ──── a message that is no suspect, ──► wide ─── intake ends ──► draining ──► done
//	   ▲         or a suspect is handled            │  Concurrency at a time
//	   │  one message at a time                     │
//	   └────── the channel is lost, or cancelled ◄──┘       Close, from anywhere: done at once
//
// A process that dies of a message takes those with it that were delivered beside it, and
// their counts rise too. So a new consumer begins carefully.
type consumer struct {
	t   *Transport
	sub transports.Subscription
	log *slog.Logger
	out chan *message.Message

	intake  context.Context         //nolint:containedctx // the subscription's life: its end stops the intake
	removed context.CancelFunc      // of intake
	base    context.Context         //nolint:containedctx // that of delivered messages: ends with Close, or behind out
	end     context.CancelCauseFunc // of base

	removals int            // of the subscription, before this consumer
	began    time.Time      // when that was so
	inFlight atomic.Int64   // delivered and not settled, on whichever channel
	settled  chan struct{}  // a signal that inFlight has fallen
	progress atomic.Bool    // one was acknowledged since the last back-off of an ordered subscription
	watchers sync.WaitGroup // of messages in flight

	suspects suspects
	confined bool // the messages in flight are suspects, which other messages are kept apart from

	older         olderQueues
	warnedOfOlder bool

	told     bool // the receiver calls settle; else watch, a goroutine for each message in flight
	flightMu sync.Mutex
	flights  map[*message.Message]flight // those that settle waits for; guarded by flightMu
}

// run delivers until the subscription ends.
func (c *consumer) run(r *reception) {
	defer c.t.remove(c)
	defer c.end(transports.ErrClosed)
	defer c.removed()
	defer close(c.out)
	defer c.t.freeName(c)
	defer c.land()
	delay := firstDelay
	for r != nil {
		why := c.deliverAll(r)
		if why == outOfOrder { // what is in flight is finished before the rest comes again
			if why = c.atMost(0, c.intake.Done(), nil); why == goOn {
				why = outOfOrder
			}
			// One that is nacked each time must not go round, and be counted, without a pause.
			if c.progress.Swap(false) {
				delay = firstDelay
			}
			sleep(c.intake, delay)
			delay = min(2*delay, longestDelay)
		}
		if why == intakeEnded {
			c.drain(r)
		}
		cut := r.ch.IsClosed()
		var lost error
		if cut || why == channelLost {
			lost = r.reason()
		}
		c.close(r)
		if why == intakeEnded || why == killed {
			return
		}
		if lost != nil {
			c.interrupted(lost)
		}
		if lost != nil && !isLost(lost) {
			c.afterLoss()
		}
		r = c.again(why == channelLost && c.beginsCarefully(), lost)
	}
	c.atMost(0, nil, nil) // what is in flight has nowhere to be settled, and is still the receiver's
}

// afterLoss waits before a consumer that the broker has ended, and not the connection,
// consumes again: until the broker has told every consumer that the queue is gone, if it is,
// and until a message can be handled. Where messages have timed out, that can take long, and
// other processes handle the subscription meanwhile.
func (c *consumer) afterLoss() {
	clear(c.older) // the queue may be made again
	sleep(c.intake, newsOfDeletion)
	if !c.sub.Ephemeral {
		c.atMost(c.sub.Concurrency-1, c.intake.Done(), nil)
	}
}

// interrupted tells the receiver why the subscription receives nothing, or with nil that it
// receives again. The queue of an ephemeral one is lost with its connection.
func (c *consumer) interrupted(cause error) {
	if c.sub.OnInterruption != nil {
		c.sub.OnInterruption(transports.Interruption{Cause: cause, Missing: cause != nil && c.sub.Ephemeral})
	}
}

// outcome is why deliverAll returned.
type outcome int

const (
	goOn        outcome = iota
	intakeEnded         // the subscription's context has ended
	killed              // the transport is closed
	channelLost         // or the broker has cancelled the consumer
	outOfOrder          // a message of an ordered subscription goes back
)

// deliverAll hands on what comes.
func (c *consumer) deliverAll(r *reception) outcome {
	for {
		if why := c.atMost(c.sub.Concurrency-1, c.intake.Done(), r.lost); why != goOn {
			return why
		}
		switch { // or chance would decide, message by message
		case c.intake.Err() != nil:
			return intakeEnded
		case r.isLost():
			return channelLost
		}
		select {
		case d, ok := <-r.deliveries:
			if !ok || r.isLost() { // what is lost may be another consumer's by now
				return channelLost
			}
			if why := c.receive(r, &d); why != goOn {
				return why
			}
		case <-r.lost:
			return channelLost
		case <-r.returned:
			return outOfOrder
		case <-c.intake.Done():
			return intakeEnded
		case <-c.base.Done():
			return killed
		}
	}
}

// receive delivers a message as soon as its count allows, or poisons it.
func (c *consumer) receive(r *reception, d *amqp.Delivery) outcome {
	n := deliveries(d)
	if c.hopeless(r, n) {
		return c.giveUp(r, d, n)
	}
	if r.careful && c.suspects.room(n, c.sub.Concurrency) > 1 {
		if err := r.widen(c.t.names.queue(c.sub.Name), c.sub.Concurrency); err != nil {
			return channelLost
		}
	}
	why := c.admit(r, n)
	if why == goOn {
		return c.deliver(r, d)
	}
	if why == intakeEnded {
		c.giveBack(r, d, untouched)
	}
	return why
}

// atMost waits until no more than n messages are in flight.
func (c *consumer) atMost(n int, stop, lost <-chan struct{}) outcome {
	for c.inFlight.Load() > int64(n) {
		if why := c.nextSettled(stop, lost); why != goOn {
			return why
		}
	}
	return goOn
}

// nextSettled waits until a message is settled.
func (c *consumer) nextSettled(stop, lost <-chan struct{}) outcome {
	select {
	case <-c.settled:
		return goOn
	case <-stop:
		return intakeEnded
	case <-lost:
		return channelLost
	case <-c.base.Done():
		return killed
	}
}

// deliver offers a message to the receiver.
func (c *consumer) deliver(r *reception, d *amqp.Delivery) outcome {
	msg := decode(d, c.t.cfg.Exchange)
	msg.SetContext(c.base)
	f := flight{r, d}
	if r.isLost() { // or chance would decide
		return channelLost
	}
	c.takeOff(msg, f)
	select {
	case c.out <- msg:
		if !c.told {
			c.watchers.Go(func() { c.watch(msg, f) })
		}
		return goOn
	case <-c.intake.Done():
		c.withdraw(msg)
		c.giveBack(r, d, untouched)
		return intakeEnded
	case <-c.base.Done():
		c.withdraw(msg)
		return killed
	case <-r.returned: // this one is behind it
		c.withdraw(msg)
		return outOfOrder
	case <-r.lost: // the message comes again
		c.withdraw(msg)
		return channelLost
	}
}

// again consumes after the channel has ended, for as long as it takes; nil means that the
// subscription ends. lost is why, nil when the consumer has closed it for itself.
func (c *consumer) again(careful bool, lost error) *reception {
	ctx, cancel := context.WithCancel(c.intake)
	defer cancel()
	defer context.AfterFunc(c.base, cancel)()
	interrupted := lost != nil
	unsaid := interrupted && !isLost(lost) // the connection has said why it was lost
	for delay := firstDelay; ; delay = min(2*delay, longestDelay) {
		removals, err := c.t.removals(ctx, c.sub.Name)
		if time.Since(c.began) > 2*c.t.removedExpiry { // those are forgotten by now
			c.removals = 0
		}
		if err == nil && removals > c.removals {
			c.log.Info("the subscription was removed")
			return nil
		}
		if unsaid && ctx.Err() == nil {
			c.log.Warn("the subscription has lost its consumer; consuming again", slog.Any("error", lost))
			unsaid = false
		}
		if err == nil {
			var r *reception
			if r, err = c.consume(ctx, careful); err == nil {
				if interrupted {
					c.interrupted(nil)
				}
				return r
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		interrupted = true
		c.interrupted(err)
		c.log.Warn("can't consume; trying again", slog.Any("error", err))
		if !sleep(ctx, delay) {
			return nil
		}
	}
}

// drain ends the intake and lets the receiver settle what is in flight. An ordered
// subscription is not cancelled while something is in flight: the broker would let
// another consumer overtake it.
func (c *consumer) drain(r *reception) {
	if !c.sub.Ordered {
		_ = r.ch.Cancel(r.tag, false) // if it is lost, so is what follows
		var giving sync.WaitGroup     // together: each may wait for the broker to take a copy
		for d := range r.deliveries {
			giving.Go(func() { c.giveBack(r, &d, untouched) })
		}
		giving.Wait()
	}
	if c.atMost(0, nil, nil) == goOn && c.sub.Ephemeral {
		_, _ = r.ch.QueueDelete(c.t.names.poison(c.sub.Name), false, false, false) // else it goes with the connection
	}
}

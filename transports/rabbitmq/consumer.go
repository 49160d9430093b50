package rabbitmq

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// What the count of a message's earlier deliveries means. Each delivery that was not
// settled counts: of a process that died, and of one that was shut down or lost its
// connection with the message on its hands.
const (
	// suspectAfter: such a message may have ended the process, so it is handled alone,
	// and what was delivered beside it is not to blame for the next time.
	suspectAfter = 2

	// renewAfter: a message that is given back by a process that lives is given back as
	// a copy, whose count begins anew. The broker's limit is for those that kill.
	renewAfter = 10

	// crashLimit: nobody who was alive has given it back for so long that it must be
	// what they die of. It is poisoned.
	crashLimit = 20

	// orderedCrashLimit is that of ordered subscriptions, in which a copy would lose its
	// place, so that those who live count too: each deploy, and each 15 minutes of a pause,
	// after which what is held goes back. It is ten days of pause.
	orderedCrashLimit = 1000
)

// consumer is one Subscribe.
//
//	careful ──── a message that is no suspect ───► wide ─── intake ends ──► draining ──► done
//	   ▲  one message at a time                     │  Concurrency at a time
//	   └────── the channel is lost, or cancelled ◄──┘       Close, from anywhere: done at once
//
// A process that dies of a message takes those with it that were delivered beside it, and
// their counts rise too. So a new consumer begins carefully.
type consumer struct {
	t   *Transport
	sub transports.Subscription
	log *slog.Logger
	out chan *message.Message

	intake context.Context         //nolint:containedctx // the subscription's life: its end stops the intake
	base   context.Context         //nolint:containedctx // that of delivered messages: ends with Close, or behind out
	end    context.CancelCauseFunc // of base

	removals int            // of the subscription, before this consumer
	began    time.Time      // when that was so
	inFlight atomic.Int64   // delivered and not settled, on whichever channel
	settled  chan struct{}  // a signal that inFlight has fallen
	progress atomic.Bool    // one was acknowledged since the last back-off of an ordered subscription
	watchers sync.WaitGroup // of messages in flight

	told     bool // the receiver calls settle; else watch, a goroutine for each message in flight
	flightMu sync.Mutex
	flights  map[*message.Message]flight // those that settle waits for; guarded by flightMu
}

// reception is a consumer's life on one channel.
type reception struct {
	ch         *amqp.Channel
	tag        string // of the consumer
	acks       *acks
	deliveries <-chan amqp.Delivery
	lost       <-chan *amqp.Error // the client closes it
	cause      *amqp.Error        // taken from lost
	careful    bool               // with a prefetch of 1
	gaveUp     bool               // a message of an ordered subscription
	returned   chan struct{}      // a signal that an ordered subscription has to begin anew
}

// canCount reports whether the broker counts the deliveries of the queue's messages.
func (c *consumer) canCount() bool { return !c.sub.Ephemeral && c.t.cfg.QueueType == Quorum }

// beginsCarefully reports whether to take one message at a time at first. An ordered
// subscription does not: the broker puts what is given back behind all else that was,
// so its order is kept only if a consumer takes, and gives back, as many as the one before.
func (c *consumer) beginsCarefully() bool {
	return c.canCount() && !c.sub.Ordered && c.sub.Concurrency > 1
}

// receive declares the subscription and begins to consume.
func (c *consumer) receive(ctx context.Context, careful bool) (*reception, error) {
	if err := c.t.con.start(ctx); err != nil {
		return nil, err
	}
	r := &reception{tag: c.sub.Name, careful: careful, returned: make(chan struct{}, 1)}
	_, err := c.t.con.open(ctx, func(ch *amqp.Channel) error {
		if err := c.t.declareExchanges(ch); err != nil {
			return err
		}
		if err := c.t.declareSubscription(ch, c.sub); err != nil {
			return err
		}
		if err := c.declareDelays(ctx, ch); err != nil {
			return err
		}
		r.ch, r.lost = ch, ch.NotifyClose(make(chan *amqp.Error, 1))
		return r.consume(c.t.names.queue(c.sub.Name), c.sub.Concurrency)
	})
	if err != nil {
		return nil, err
	}
	r.acks = newAcks(r.ch)
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

// maxPrefetch is what the protocol can say, in 16 bits.
const maxPrefetch = 1<<16 - 1

// run delivers until the subscription ends.
func (c *consumer) run(r *reception) {
	defer c.t.remove(c)
	defer c.end(transports.ErrClosed)
	defer close(c.out)
	defer c.t.freeName(c)
	defer c.land()
	delay := firstDelay
	for r != nil {
		why := c.deliverAll(r)
		if why == outOfOrder { // what is in flight is finished before the rest comes again
			if why = c.atMost(0, c.intake.Done()); why == goOn {
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
		r.close()
		if why == intakeEnded || why == killed {
			return
		}
		if lost != nil {
			c.interrupted(lost)
		}
		if why == channelLost && !cut {
			sleep(c.intake, newsOfDeletion) // cancelled by the broker: the queue is gone
		}
		r = c.again(why == channelLost && c.beginsCarefully(), lost)
	}
	c.atMost(0, nil) // what is in flight has nowhere to be settled, and is still the receiver's
}

// interrupted tells the receiver why the subscription receives nothing, or with nil that it
// receives again. The queue of an ephemeral one is lost with its connection.
func (c *consumer) interrupted(cause error) {
	if c.sub.OnInterruption != nil {
		c.sub.OnInterruption(transports.Interruption{Cause: cause, Missing: cause != nil && c.sub.Ephemeral})
	}
}

// reason returns why the channel delivers no more.
func (r *reception) reason() error {
	select {
	case err := <-r.lost:
		if err != nil {
			r.cause = err
		}
	default:
	}
	switch {
	case r.cause != nil:
		return r.cause
	case r.ch.IsClosed():
		return errLost
	}
	return errCancelled
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
	suspect := false // the last message was one, and has the subscription to itself
	for {
		limit := c.sub.Concurrency - 1
		if suspect {
			limit = 0
		}
		if why := c.atMost(limit, c.intake.Done()); why != goOn {
			return why
		}
		if c.intake.Err() != nil { // or chance would decide, message by message
			return intakeEnded
		}
		select {
		case d, ok := <-r.deliveries:
			if !ok {
				return channelLost
			}
			n := deliveries(&d)
			suspect = n >= suspectAfter
			switch {
			case r.careful && !suspect:
				if why := c.widen(r, &d); why != goOn {
					return why
				}
				continue
			case suspect && c.hopeless(r, n):
				if why := c.giveUp(r, &d, n); why != goOn {
					return why
				}
				continue
			case suspect:
				if why := c.atMost(0, c.intake.Done()); why != goOn {
					return why
				}
			}
			if why := c.deliver(r, &d); why != goOn {
				return why
			}
		case <-r.returned:
			return outOfOrder
		case <-c.intake.Done():
			return intakeEnded
		case <-c.base.Done():
			return killed
		}
	}
}

// widen delivers the first message that is no suspect, and takes many at a time from
// then on, which a consumer can't change for itself: another one takes its place.
func (c *consumer) widen(r *reception, d *amqp.Delivery) outcome {
	if err := r.ch.Cancel(r.tag, false); err != nil {
		return channelLost
	}
	r.tag += "+"
	r.careful = false
	if err := r.consume(c.t.names.queue(c.sub.Name), c.sub.Concurrency); err != nil {
		return channelLost
	}
	return c.deliver(r, d)
}

// consume makes r's channel consume with the prefetch of its mode.
func (r *reception) consume(queue string, prefetch int) (err error) {
	if r.careful {
		prefetch = 1
	}
	if err := r.ch.Qos(min(prefetch, maxPrefetch), 0, false); err != nil {
		return fmt.Errorf("set prefetch: %w", err)
	}
	r.deliveries, err = r.ch.Consume(queue, r.tag, false, false, false, false, nil)
	return explain(toConsume, "queue", queue, err)
}

// hopeless reports whether a message is to be given up without another try. In an ordered
// subscription those behind a message that kills were delivered as often as it was, so
// only the first one is, until the next crash tells that it was not the only one.
func (c *consumer) hopeless(r *reception, deliveries int) bool {
	if c.sub.Ordered {
		return deliveries >= orderedCrashLimit && !r.gaveUp
	}
	return deliveries >= crashLimit
}

// atMost waits until no more than n messages are in flight.
func (c *consumer) atMost(n int, stop <-chan struct{}) outcome {
	for c.inFlight.Load() > int64(n) {
		select {
		case <-c.settled:
		case <-stop:
			return intakeEnded
		case <-c.base.Done():
			return killed
		}
	}
	return goOn
}

// deliver offers a message to the receiver.
func (c *consumer) deliver(r *reception, d *amqp.Delivery) outcome {
	msg := decode(d, c.t.cfg.Exchange)
	msg.SetContext(c.base)
	f := flight{r, d}
	c.takeOff(msg, f)
	select {
	case c.out <- msg:
		if !c.told {
			c.watchers.Go(func() { c.watch(msg, f) })
		}
		return goOn
	case <-c.intake.Done():
		c.withdraw(msg)
		c.giveBack(r, d)
		return intakeEnded
	case <-c.base.Done():
		c.withdraw(msg)
		return killed
	case <-r.returned: // this one is behind it
		c.withdraw(msg)
		return outOfOrder
	case r.cause = <-r.lost: // the message comes again
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
			if r, err = c.receive(ctx, careful); err == nil {
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
			giving.Go(func() { c.giveBack(r, &d) })
		}
		giving.Wait()
	}
	if c.atMost(0, nil) == goOn && c.sub.Ephemeral {
		_, _ = r.ch.QueueDelete(c.t.names.poison(c.sub.Name), false, false, false) // else it goes with the connection
	}
}

// close tells the broker what is settled and closes the channel, which gives back the
// rest.
func (r *reception) close() {
	r.acks.flush()
	_ = r.ch.Close() // it may be lost already
	r.acks.close()
}

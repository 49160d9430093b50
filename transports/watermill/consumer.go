package watermill

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

const (
	// noticeTimeout is how long a subscriber may take to notice an acknowledgement before
	// it can be ended. Not all of them show that they have.
	noticeTimeout = time.Second

	// headStart is how long a subscriber that is asked to end may take back by itself
	// what it offers, before that is received and nacked: many would offer it again.
	headStart = 100 * time.Millisecond
)

// consumer delivers what Watermill's subscriber gives for the topics of a subscription.
//
//	source ─► forward ─┐
//	source ─► forward ─┴─► out ──► receiver
//	             │
//	             └─► settle, a goroutine for each message in flight
//
// Its end is that of Watermill's subscriptions in reverse. They are left alone until
// everything delivered is settled, because many of them drop what is in flight when
// their context ends, acknowledged or not:
//
//	intake ends ──► forward ends ──► all settled ──► subscriptions end ──► out is closed
//	(ctx, Close, or a source was closed)
type consumer struct {
	transport  *Transport
	name       string
	ephemeral  bool
	ordered    bool
	topics     []string
	subscriber message.Subscriber
	owned      bool // made for this consumer alone

	sources []source
	out     chan *message.Message
	slots   chan struct{} // one for each message in flight

	intake     context.Context    //nolint:containedctx // the consumer's life, not a call's: ends when no more is to be delivered
	stopIntake context.CancelFunc // also when a source was closed: the subscription is lost
	delivery   context.Context    //nolint:containedctx // what its messages carry; ends with the transport
	endSources context.CancelFunc // ends the context of Watermill's subscriptions
	end        func()             // releases what the consumer holds of its transport

	settling sync.WaitGroup

	nacksMu sync.Mutex
	nacks   map[string]int // by the ids of messages that were nacked and not acknowledged since
}

// source is one subscription of Watermill's.
type source struct {
	topic string
	ch    <-chan *message.Message
}

// run delivers until intake ends, waits until what is in flight is settled, ends
// Watermill's subscriptions, and closes the channel.
func (c *consumer) run() {
	var forwarding sync.WaitGroup
	for _, s := range c.sources {
		forwarding.Go(func() { c.forward(s) })
	}
	forwarding.Wait()
	c.settling.Wait()
	c.release()
	c.transport.remove(c) // its name is free before anyone sees that the channel is closed
	close(c.out)
}

// forward delivers what comes from s. It takes one message more than there are slots:
// a slot that waited for a message could not be used by the other sources.
func (c *consumer) forward(s source) {
	defer c.stopIntake()
	for {
		var in *message.Message
		select {
		case <-c.intake.Done():
			return
		case msg, ok := <-s.ch:
			if !ok {
				return
			}
			in = msg
		}
		select {
		case <-c.intake.Done():
			in.Nack()
			return
		case c.slots <- struct{}{}:
		}
		msg := incoming(s.topic, in)
		msg.SetContext(deliveryContext{Context: c.delivery, message: in.Context()})
		select {
		case <-c.intake.Done():
			in.Nack()
			return
		case c.out <- msg:
			c.settling.Go(func() { c.settle(in, msg) })
		}
	}
}

// settle passes the receiver's verdict on.
func (c *consumer) settle(in, msg *message.Message) {
	if !c.verdict(msg) {
		c.giveBack(in)
		return
	}
	c.forgetNacks(in.UUID)
	in.Ack()
	<-c.slots

	// A subscriber that waits for the verdict and for its own end at the same time may see
	// either first. Ended now, it could take the message for one that was not
	// acknowledged. It shows that it has seen the verdict by ending the message's context.
	seen := in.Context().Done()
	if seen == nil {
		return
	}
	timer := time.NewTimer(noticeTimeout)
	defer timer.Stop()
	select {
	case <-seen:
	case <-timer.C:
	}
}

// verdict waits for the receiver, and reports whether it has acknowledged.
func (c *consumer) verdict(msg *message.Message) bool {
	select {
	case <-msg.Acked():
		return true
	case <-msg.Nacked():
		return false
	case <-c.delivery.Done():
	}
	// Both may have happened: an acknowledgement that came first counts. One that
	// comes from now on does not, since Nack is first.
	return !msg.Nack()
}

// release ends Watermill's subscriptions and gives back what they still offer.
func (c *consumer) release() {
	giveUp := make(chan struct{})
	ended := make(chan error, 1)
	closed := make(chan struct{}) // the subscriber has returned from its Close
	go func() {
		var draining sync.WaitGroup
		for _, s := range c.sources {
			draining.Go(func() { drain(s.ch, closed, giveUp) })
		}
		var err error
		if c.owned && c.subscriber != nil { // there is none when it could not be made
			// Its Close first: the end of the context makes some forget what was
			// acknowledged just before, such as those that commit a batch.
			err = recovered(c.subscriber.Close)
			close(closed)
		}
		c.endSources()
		draining.Wait()
		ended <- err
	}()
	timer := time.NewTimer(c.transport.cfg.CloseTimeout)
	defer timer.Stop()
	select {
	case err := <-ended:
		c.transport.fault(err)
	case <-timer.C:
		close(giveUp)
		c.endSources()
		c.transport.fault(c.transport.overdue("the subscriber of " + c.name))
	}
}

// drain nacks what comes from a subscription that was asked to end, until it is closed.
func drain(ch <-chan *message.Message, closed, giveUp <-chan struct{}) {
	timer := time.NewTimer(headStart)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
	case <-giveUp:
	}
	for {
		select {
		case msg, ok := <-ch:
			if !ok {
				return
			}
			msg.Nack()
		case <-giveUp:
			return
		}
	}
}

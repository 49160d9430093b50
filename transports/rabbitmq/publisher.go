package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// outgoing is a message on its way to the broker.
type outgoing struct {
	exchange, key string
	msg           amqp.Publishing
}

// publisher sends messages through a few channels, each with a window of messages that
// the broker has not confirmed yet. Callers wait for their own messages only, so that
// many share a channel without waiting for one another's confirms.
type publisher struct {
	conn     *connection
	exchange string // the topic exchange, through which a message may reach several queues
	lanes    []*lane
	isolator *isolator
	refused  refusals
	next     atomic.Uint32
	working  atomic.Int32  // lanes and isolator
	gone     chan struct{} // closed when they have ended: calls that are still open get no result

	nackDelay time.Duration // before the first try again; doubled from then on
}

// laneQueue is how many calls may wait for a lane without a goroutine that blocks.
const laneQueue = 64

// start makes the channels.
func (p *publisher) start(conn *connection, cfg Config, declare, redeclare func(*amqp.Channel) error) {
	p.conn, p.exchange, p.gone, p.nackDelay = conn, cfg.Exchange, make(chan struct{}), nackDelay
	p.isolator = newIsolator(conn, cfg.Logger, declare, p)
	for range cfg.PublishChannels {
		p.lanes = append(p.lanes, &lane{
			conn: conn, window: cfg.ConfirmWindow, log: cfg.Logger, declare: redeclare, isolator: p.isolator,
			queue: make(chan *call, laneQueue), ended: p.ended, renewal: make(chan struct{}, 1),
		})
	}
	p.working.Store(int32(len(p.lanes)) + 1) //nolint:gosec // a few
	for _, l := range p.lanes {
		conn.spawn(l.run)
	}
	conn.spawn(p.isolator.run)
}

// ended is called at the end of each lane and of the isolator.
func (p *publisher) ended() {
	if p.working.Add(-1) == 0 {
		close(p.gone)
	}
}

// errReturned is the result of a message that no queue was bound for.
var errReturned = errors.New("no queue is bound")

// publish sends messages, in order, and waits until the broker has confirmed them. It
// returns the result of each: nil, errReturned, errNacked, why ctx ended, or what is wrong
// with the message.
func (p *publisher) publish(ctx context.Context, messages []outgoing) []error {
	if ctx.Err() != nil {
		results := make([]error, len(messages))
		for i := range results {
			results[i] = context.Cause(ctx)
		}
		return results
	}
	c := newCall(ctx, messages)
	p.send(c)
	results := c.wait(p)
	if c.nacked {
		p.publishNacked(ctx, c)
	}
	return results
}

// awaited says what publishers wait for, whose messages are sent or about to be.
func (p *publisher) awaited() string {
	if p.conn.isBlocked() {
		return waitingForResources
	}
	return "waiting for the broker's confirm"
}

// send gives a call to the next lane, and messages to addresses that were refused lately to
// the isolator.
func (p *publisher) send(c *call) {
	if apart := p.refused.in(c.messages); len(apart) > 0 {
		c.apart = make([]bool, len(c.messages))
		for _, i := range apart {
			c.apart[i] = true
		}
		p.isolator.add(job{call: c, indexes: apart})
		if len(apart) == len(c.messages) {
			return
		}
	}
	p.enqueue(c)
}

func (p *publisher) enqueue(c *call) {
	l := p.lanes[int(p.next.Add(1))%len(p.lanes)]
	select {
	case l.queue <- c:
	case <-c.ctx.Done():
	case <-p.conn.ctx.Done(): // wait says the rest
	}
}

// call is one batch of messages with somebody who waits for it.
type call struct {
	ctx      context.Context //nolint:containedctx // that of the call that the struct stands for
	messages []outgoing
	apart    []bool        // which of them only the isolator publishes; nil for none
	next     int           // the first that was not written yet; the lane's that writes the call
	done     chan struct{} // closed when all have their result

	mu      sync.Mutex // guards what follows
	results []error
	settled []bool
	open    int   // messages without a result
	nacked  bool  // one of them was
	lane    *lane // which has nacked the last of them
	opened  int64 // when its channel was
}

func newCall(ctx context.Context, messages []outgoing) *call {
	c := &call{
		ctx: ctx, messages: messages, done: make(chan struct{}),
		results: make([]error, len(messages)), settled: make([]bool, len(messages)), open: len(messages),
	}
	if c.open == 0 {
		close(c.done)
	}
	return c
}

func (c *call) isApart(i int) bool { return len(c.apart) > 0 && c.apart[i] }

// settle sets the result of a message, once.
func (c *call) settle(i int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked(i, err)
}

func (c *call) settleLocked(i int, err error) {
	if c.settled[i] {
		return
	}
	c.settled[i], c.results[i] = true, err
	if c.open--; c.open == 0 {
		close(c.done)
	}
}

// nack is settle for a message that the broker has not taken, on the channel of s; nil for
// the isolator's.
func (c *call) nack(i int, s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled[i] {
		return
	}
	if c.nacked = true; s != nil {
		c.lane, c.opened = s.lane, s.since
	}
	c.settleLocked(i, errNacked)
}

// fail gives all messages without a result this one.
func (c *call) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.messages {
		c.settleLocked(i, err)
	}
}

// wanted reports whether a message still has to be sent.
func (c *call) wanted(i int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.settled[i]
}

// wait returns the results when all messages have one, or when ctx ends: the messages
// without one then may or may not reach the broker, if they were sent, and are not sent
// if they were not.
func (c *call) wait(p *publisher) []error {
	select {
	case <-c.done:
	case <-p.gone:
		c.fail(transports.ErrClosed)
	case <-c.ctx.Done():
		c.fail(ended(c.ctx, p.awaited()))
	}
	return c.results // nobody writes to them once all are settled
}

// failuresOf makes the error of a batch, of the results of its messages.
func failuresOf(results []error) error {
	var failures []transports.PublishFailure
	for i, err := range results {
		if err != nil {
			failures = append(failures, transports.PublishFailure{Index: i, Err: err})
		}
	}
	return transports.BatchError(len(results), failures)
}

// channelError is the result of a message for which the broker has closed the channel.
func channelError(err *amqp.Error) error {
	return fmt.Errorf("the broker refuses the message: %w", err)
}

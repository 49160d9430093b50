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
	lanes []*lane
	next  atomic.Uint32
}

// errReturned is the result of a message that no queue was bound for.
var errReturned = errors.New("no queue is bound")

const (
	nackMinDelay = 50 * time.Millisecond // before a message is sent again that the broker has refused
	nackMaxDelay = 5 * time.Second
)

// publish sends messages, in order, and waits until the broker has confirmed them. It
// returns the result of each: nil, errReturned, why ctx ended, or what is wrong with the
// message. What the broker refuses for now is sent again.
func (p *publisher) publish(ctx context.Context, messages []outgoing) []error {
	results := make([]error, len(messages))
	if len(messages) == 0 {
		return results
	}
	if ctx.Err() != nil {
		for i := range results {
			results[i] = context.Cause(ctx)
		}
		return results
	}
	pending := messages
	var index []int // of pending in messages; nil while they are the same
	for delay := nackMinDelay; ; delay = min(2*delay, nackMaxDelay) {
		c := newCall(ctx, pending)
		p.send(c)
		var again []outgoing
		var againIndex []int
		for i, err := range c.wait(p.awaited) {
			at := i
			if index != nil {
				at = index[i]
			}
			results[at] = err
			if errors.Is(err, errNacked) {
				again, againIndex = append(again, pending[i]), append(againIndex, at)
			}
		}
		if len(again) == 0 {
			return results
		}
		if !sleep(ctx, delay) {
			for _, at := range againIndex {
				results[at] = ended(ctx, errNacked.Error())
			}
			return results
		}
		pending, index = again, againIndex
	}
}

// awaited says what publishers wait for, whose messages are sent or about to be.
func (p *publisher) awaited() string {
	if p.lanes[0].conn.isBlocked() { // they share the connection
		return waitingForResources
	}
	return "waiting for the broker's confirm"
}

// send gives a call to the next lane.
func (p *publisher) send(c *call) {
	l := p.lanes[int(p.next.Add(1))%len(p.lanes)]
	c.gone = l.gone
	select {
	case l.queue <- c:
	case <-l.gone: // wait says the rest
	case <-c.ctx.Done():
	}
}

// call is one batch of messages with somebody who waits for it.
type call struct {
	ctx      context.Context //nolint:containedctx // that of the call that the struct stands for
	messages []outgoing
	done     chan struct{}   // closed when all have their result
	gone     <-chan struct{} // of the lane that it was given to

	mu      sync.Mutex // guards what follows
	results []error
	settled []bool
	open    int // messages without a result
}

func newCall(ctx context.Context, messages []outgoing) *call {
	return &call{
		ctx: ctx, messages: messages, done: make(chan struct{}),
		results: make([]error, len(messages)), settled: make([]bool, len(messages)), open: len(messages),
	}
}

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
// awaited says what for.
func (c *call) wait(awaited func() string) []error {
	select {
	case <-c.done:
	case <-c.gone:
		c.fail(transports.ErrClosed)
	case <-c.ctx.Done():
		c.fail(ended(c.ctx, awaited()))
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

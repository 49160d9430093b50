package watermill

import (
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// A message that its receiver nacks goes back at once, from the tenth time on after nackDelay:
// many subscribers send it again as fast as they can.
const (
	nacksAtOnce = 10
	nackDelay   = time.Second

	// maxNacked bounds the ids that are counted. Those of messages that have gone to other
	// processes stay until there are so many.
	maxNacked = 1000
)

// giveBack nacks a message and frees its slot: before it backs off, so that others can pass,
// unless the subscription is ordered.
func (c *consumer) giveBack(in *message.Message) {
	switch atOnce := c.countNack(in.UUID); {
	case atOnce:
		in.Nack()
		<-c.slots
	case c.ordered:
		c.backOff()
		in.Nack()
		<-c.slots
	default:
		<-c.slots
		c.backOff()
		in.Nack()
	}
}

// countNack counts a nack of a message, and reports whether it goes back at once.
func (c *consumer) countNack(id string) (atOnce bool) {
	c.nacksMu.Lock()
	defer c.nacksMu.Unlock()
	if len(c.nacks) == maxNacked {
		clear(c.nacks)
	}
	if c.nacks == nil {
		c.nacks = make(map[string]int)
	}
	c.nacks[id]++
	return c.nacks[id] < nacksAtOnce
}

// forgetNacks forgets the nacks of a message that is acknowledged.
func (c *consumer) forgetNacks(id string) {
	c.nacksMu.Lock()
	defer c.nacksMu.Unlock()
	delete(c.nacks, id)
}

// backOff waits for nackDelay, or until intake ends.
func (c *consumer) backOff() {
	timer := time.NewTimer(nackDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.intake.Done():
	}
}

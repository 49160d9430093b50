package sql

import "time"

// A message that its receiver nacks comes back at once, from the tenth time on after nackDelay:
// it must neither be redelivered as fast as possible nor keep others from being delivered.
// Meanwhile the consumer holds it, as if it were in flight.
const (
	nacksAtOnce = 10
	nackDelay   = time.Second

	// maxBackingOff bounds what a receiver that nacks everything makes the consumer hold.
	maxBackingOff = 1000
)

// mostBackingOff returns how many messages may back off while others are delivered. In an
// ordered subscription none is delivered meanwhile.
func (c *consumer) mostBackingOff() int {
	if c.ordered {
		return 1
	}
	return maxBackingOff
}

// putBack returns an item to its old place, at once or after nackDelay. Called with mu held.
func (c *consumer) putBack(it *item) {
	if it.nacks < nacksAtOnce {
		c.ready.insert(it)
		return
	}
	it.due = time.Now().Add(nackDelay)
	c.backingOff = append(c.backingOff, it)
}

// ripen makes those items ready that have backed off for long enough, and returns a channel that
// is sent to when the next one is due, nil if there is none. Called with mu held.
func (c *consumer) ripen(now time.Time) <-chan time.Time {
	for len(c.backingOff) > 0 {
		it := c.backingOff[0]
		if it.due.After(now) {
			return time.After(it.due.Sub(now))
		}
		c.backingOff[0] = nil
		c.backingOff = c.backingOff[1:]
		c.ready.insert(it)
	}
	return nil
}

package sql

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/internal/lease"
	"github.com/gotidings/tidings/transports"
)

// maxInFlight bounds the room that is made for deliveries, for who says "unlimited"
// by a huge concurrency.
const maxInFlight = 1 << 16

// consumer delivers from one subscription to one channel.
//
//	fetch ──► ready ──► run ──► out ──► receiver
//	  │         ▲                │
//	  ▼         └──── nacked ────┤ settle, a goroutine for each message in flight
//	claims ◄───────── acked ─────┘
//	  └──► settler
//
// fetch claims ahead of the deliveries, as much as the receiver has just been able to
// handle in aheadTime, or in the time of two claims. What is in ready and in flight belongs to claims, or is an
// exception, a single message that was requeued.
type consumer struct {
	transport *Transport
	number    int64 // in the order of their making
	group     *group
	limit     int // most in flight
	ordered   bool
	ephemeral bool
	out       chan *message.Message // with room for limit, so that deliveries need not wait for each other

	intake     context.Context //nolint:containedctx // the consumer's life, not a call's: ends when no more is to be delivered
	stopIntake context.CancelFunc
	delivery   context.Context //nolint:containedctx // what its messages carry; ends with the transport

	wakeup   chan struct{} // one token: there may be something to deliver
	fetchUp  chan struct{} // one token: there may be something to fetch, or room for it
	hints    atomic.Uint32 // where to look for it
	settling sync.WaitGroup
	batch    []*item // being delivered by run

	mu         sync.Mutex // guards what follows
	ready      queue
	backingOff []*item // nacked, in the order of their due times
	inFlight   int
	claims     []*claim             // not settled, in the order of their making
	exceptions map[int64]*exception // not settled, by the id of their row
	nextSeq    int64
	pace       pace
	active     bool            // holds the lease of an ordered subscription
	inherited  bool            // of an ordered subscription: there are no claims but this consumer's
	safe       subscriptionRow // cursor, once what is below it is in claims

	interrupted interruption
	source      // of fetch alone
}

// item is a message at its place in a consumer.
type item struct {
	record
	seq       int64
	claim     *claim // nil of an exception
	index     int    // in the claim
	exception *exception
	nacks     int       // by receivers
	due       time.Time // the end of its last back-off
}

// exception is a delivery that a consumer holds.
type exception struct {
	id      int64
	renewed time.Time // when the lease began
	lost    bool
}

// Hints of where to look.
const (
	hintLog    = 1 << iota // there are new messages
	hintLapsed             // a claim has lost its owner
	hintDue                // an exception is due
	hintJump               // the position should move although there is nothing
	hintStock              // look whether too much is claimed ahead
	hintAll    = hintLog | hintLapsed | hintDue
)

var consumerNumbers atomic.Int64

func newConsumer(t *Transport, g *group, s transports.Subscription) *consumer {
	limit := min(s.Concurrency, maxInFlight)
	c := &consumer{
		interrupted: interruption{tell: s.OnInterruption},
		transport:   t, number: consumerNumbers.Add(1), group: g, limit: limit, ordered: s.Ordered, ephemeral: s.Ephemeral,
		out:        make(chan *message.Message, limit),
		wakeup:     make(chan struct{}, 1),
		fetchUp:    make(chan struct{}, 1),
		exceptions: make(map[int64]*exception),
	}
	if s.Ephemeral {
		b := g.bindings[0] // they were all made at once
		c.cursor = subscriptionRow{position: b.since, latePosition: b.sinceLate}
		c.safe = c.cursor
	}
	c.hint(hintAll)
	return c
}

// hint has the consumer look somewhere.
func (c *consumer) hint(hints uint32) {
	c.hints.Or(hints)
	token(c.fetchUp)
}

// token puts one into a channel that has room for one: whoever takes it looks at
// everything.
func token(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// run delivers until intake ends, waits until what is in flight is settled, gives back
// the rest, and closes the channel.
func (c *consumer) run() {
	defer close(c.out)
	defer c.transport.leave(c)
	var fetching sync.WaitGroup
	fetching.Go(c.fetch)
	for c.next() {
		for _, it := range c.batch {
			msg, err := c.message(it)
			if err != nil {
				c.transport.store.log.Error("a message has metadata that can't be read", "subscription", c.group.name, "id", it.id, "error", err)
			}
			c.settling.Add(1)
			go c.settle(it, msg)
			c.out <- msg // does not block: there is room for as many as can be in flight
		}
		clear(c.batch) // lets them be collected
	}
	fetching.Wait()
	c.takeBack()
	ctx, cancel := lastly()
	c.giveBack(ctx, true)
	cancel()
	c.settling.Wait()
	c.finish()
}

// message makes the copy that is delivered.
func (c *consumer) message(it *item) (*message.Message, error) {
	md, err := parseMetadata(it.metadata)
	if err != nil {
		md = make(map[string]string)
	}
	msg := message.NewMessage(it.eventID, append([]byte(nil), it.payload...))
	msg.Metadata = md
	transports.SetTopic(msg, it.topic)
	ctx := c.delivery
	if c.ordered {
		ctx = lease.With(ctx, func() time.Time { return c.heldUntil(it) })
	}
	msg.SetContext(ctx)
	return msg, err
}

// heldUntil returns until when an item is ours unless its lease is renewed, the zero time
// when it is so no more.
func (c *consumer) heldUntil(it *item) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lost bool
	var renewed time.Time
	if it.claim != nil {
		lost, renewed = it.claim.lost, it.claim.renewed
	} else {
		lost, renewed = it.exception.lost, it.exception.renewed
	}
	if lost {
		return time.Time{}
	}
	return renewed.Add(c.transport.store.cfg.Lease)
}

// heldClaims returns the ids of the claims that the consumer has.
func (c *consumer) heldClaims() []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]int64, len(c.claims))
	for i, cl := range c.claims {
		ids[i] = cl.id
	}
	return ids
}

// next takes what can be delivered into batch, waiting for the first, and reports
// false when intake has ended.
func (c *consumer) next() bool {
	for {
		if c.intake.Err() != nil {
			return false
		}
		c.batch = c.batch[:0]
		c.mu.Lock()
		pause := c.ripen(time.Now())
		// The end of delivery ends intake a little later. What it puts back in between
		// must not be taken here again: out might have no room for it.
		if c.delivery.Err() == nil {
			for c.inFlight < c.limit && len(c.backingOff) < c.mostBackingOff() {
				it := c.ready.pop()
				if it == nil {
					break
				}
				if !c.holds(it) {
					continue
				}
				c.batch = append(c.batch, it)
				c.inFlight++
			}
			if len(c.batch) > 0 {
				c.pace.resume(time.Now())
			}
		}
		c.mu.Unlock()
		token(c.fetchUp)
		if len(c.batch) > 0 {
			return true
		}
		select {
		case <-c.wakeup:
		case <-pause:
		case <-c.intake.Done():
			return false
		}
	}
}

// holds reports whether an item is still ours: after the end of the lease somebody else
// may be handling it. Called with mu held.
func (c *consumer) holds(it *item) bool {
	lease := c.transport.store.cfg.Lease
	switch {
	case c.ephemeral && it.claim != nil:
		return true
	case it.claim != nil:
		if !it.claim.lost && time.Since(it.claim.renewed) > lease {
			c.lose(it.claim)
		}
		return !it.claim.lost
	default:
		if !it.exception.lost && time.Since(it.exception.renewed) > lease {
			it.exception.lost = true
			delete(c.exceptions, it.exception.id)
		}
		return !it.exception.lost
	}
}

// lose gives up a claim. What of it is in flight ends without effect. Called with mu held.
//
// An ordered subscription gives up all that it has: what comes after the lost claim has to
// wait until that is taken over.
func (c *consumer) lose(lost *claim) {
	gone := []*claim{lost}
	if c.ordered {
		gone = append(gone, c.claims...)
		c.inherited = false
	}
	for _, cl := range gone {
		cl.lost = true
		c.forget(cl)
	}
	c.ready.drop(func(it *item) bool { return it.claim != nil && it.claim.lost })
	c.transport.store.log.Warn("a lease has ended before it was renewed; its messages are handled again", "subscription", c.group.name)
}

// forget takes a claim off the list. Called with mu held.
func (c *consumer) forget(gone *claim) {
	for i, other := range c.claims {
		if other == gone {
			c.claims = append(c.claims[:i], c.claims[i+1:]...)
			return
		}
	}
}

// takeBack returns what was delivered and nobody has received.
func (c *consumer) takeBack() {
	for {
		select {
		case msg := <-c.out:
			msg.Nack()
		default:
			return
		}
	}
}

// settle waits for the receiver's verdict.
func (c *consumer) settle(it *item, msg *message.Message) {
	defer c.settling.Done()
	select {
	case <-msg.Acked():
		c.done(it, true)
	case <-msg.Nacked():
		it.nacks++
		c.done(it, false)
	case <-c.delivery.Done():
		// Both may have happened: an acknowledgement that came first counts.
		select {
		case <-msg.Acked():
			c.done(it, true)
		default:
			c.done(it, false)
		}
	}
}

// done ends the flight of an item.
func (c *consumer) done(it *item, acked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight--
	switch {
	case !acked:
		c.putBack(it) // when intake has ended it stays there
	case it.claim == nil:
		if !it.exception.lost {
			delete(c.exceptions, it.exception.id)
			c.transport.settler.exception(it.exception.id)
		}
		c.pace.count()
	default:
		it.claim.settle(it.index)
		if it.claim.left == 0 {
			c.forget(it.claim)
		}
		if !it.claim.lost {
			c.transport.settler.claim(c, it.claim)
		}
		c.pace.count()
	}
	if c.inFlight == 0 && c.ready.len() == 0 {
		c.pace.pause(time.Now())
	}
	token(c.wakeup)
}

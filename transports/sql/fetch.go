package sql

import (
	"context"
	"errors"
	"time"

	"github.com/gotidings/tidings/transports"
)

// source is what fetch knows of its place in the log.
type source struct {
	cursor     subscriptionRow // of an ephemeral subscription
	lastClaim  time.Time
	lastWasBig bool
}

// errStandby is the error of a claim for an ordered subscription that another has.
var errStandby = errors.New("another consumer is active")

const (
	fetchTimeout = 30 * time.Second
	closeGrace   = 2 * time.Second // for a claim under way when the transport is closed: one whose result is not seen waits for its lease to end
	claimPause   = 10 * time.Millisecond
	maxRetry     = time.Second
)

// fetch keeps the consumer supplied until intake ends.
func (c *consumer) fetch() {
	retry := 10 * time.Millisecond
	for c.intake.Err() == nil {
		worked, err := c.fetchOnce()
		switch {
		case errors.Is(err, transports.ErrNoSubscription):
			c.stopIntake()
			return
		case errors.Is(err, errStandby):
			c.mu.Lock()
			c.active = false
			c.mu.Unlock()
		case err != nil:
			if c.intake.Err() == nil {
				c.transport.store.log.Warn("consume waits for the database", "subscription", c.group.name, "error", err)
				c.interrupted.fetched(err)
			}
			c.hints.Or(hintAll)
			if !wait(c.intake, retry) {
				return
			}
			retry = min(2*retry, maxRetry)
			continue
		}
		c.interrupted.fetched(nil)
		retry = 10 * time.Millisecond
		if worked {
			continue
		}
		select {
		case <-c.fetchUp:
		case <-c.intake.Done():
			return
		}
	}
}

// fetchOnce does one thing, and reports whether there may be another one to do.
func (c *consumer) fetchOnce() (worked bool, err error) {
	stock := c.hints.And(^uint32(hintStock))&hintStock != 0 && !c.ordered
	n := c.demand()
	if n <= 0 && !stock {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.intake), fetchTimeout)
	defer cancel()
	defer context.AfterFunc(c.delivery, func() { time.AfterFunc(closeGrace, cancel) })()

	if stock {
		c.giveBack(ctx, false)
		return true, nil
	}
	if worked, err := c.loadMore(ctx); worked || err != nil {
		return worked, err
	}
	if c.ordered {
		if ok, err := c.activate(ctx); !ok || err != nil {
			return false, err
		}
	}
	hints := c.hints.Swap(0)
	if hints&hintLapsed != 0 && !c.ephemeral {
		began := time.Now()
		var before []int64
		if c.ordered {
			before = c.heldClaims()
		}
		claim, err := c.transport.store.takeOver(ctx, c.group, c.ordered, before, c.transport.owner)
		if err != nil || claim != nil {
			c.hints.Or(hints)
			c.precede(claim)
			c.adopt(claim, began)
			return err == nil, err
		}
	}
	if c.ordered {
		if ok, err := c.inherit(ctx); !ok || err != nil {
			c.hints.Or(hints | hintLapsed)
			return false, err
		}
	}
	if hints&hintDue != 0 {
		began := time.Now()
		records, err := c.transport.store.claimExceptions(ctx, c.group, c.transport.owner, n)
		if err != nil {
			c.hints.Or(hints)
			return false, err
		}
		c.adoptExceptions(records, began)
		if len(records) > 0 {
			c.hints.Or(hints)
			return true, nil
		}
	}
	if hints&(hintLog|hintJump) != 0 {
		return c.claimMore(ctx, n, hints)
	}
	return false, nil
}

// claimMore claims from the log. One that finds little is not followed by the next at
// once: claims are writes to one row, and many small ones cost more than they bring.
func (c *consumer) claimMore(ctx context.Context, n int, hints uint32) (bool, error) {
	began := time.Now()
	if pause := claimPause - began.Sub(c.lastClaim); pause > 0 && !c.lastWasBig {
		c.hints.Or(hints)
		wait(c.intake, pause)
		return true, nil
	}
	c.lastClaim = began
	s := c.transport.store
	var got claimed
	var err error
	if c.ephemeral {
		got, err = s.peekLog(ctx, c.group, &c.cursor, n)
	} else {
		got, err = s.claimLog(ctx, c.group, c.ordered, c.transport.owner, n, hints&hintJump != 0)
	}
	if err != nil {
		c.hints.Or(hints)
		return false, err
	}
	c.lastWasBig = got.more
	if got.more {
		c.hints.Or(hintLog)
	}
	c.adopt(got.claim, began)
	c.mu.Lock()
	c.safe = c.cursor
	if got.claim != nil {
		smooth(&c.pace.claiming, time.Since(began))
	}
	c.mu.Unlock()
	return got.claim != nil || got.more, nil
}

// demand returns how many messages to claim, or to load, now.
func (c *consumer) demand() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	ahead := c.pace.ahead(time.Now())
	room := c.limit - c.inFlight
	stock := c.ready.len()
	if stock >= room+ahead/2 {
		return 0 // what is there lasts for a while
	}
	for _, cl := range c.claims {
		stock += len(cl.ids) - cl.loaded
	}
	if n := room + ahead - stock; n > 0 {
		return n
	}
	return 1 // enough is claimed, and is to be loaded
}

// adopt takes a new claim in.
func (c *consumer) adopt(cl *claim, began time.Time) {
	if cl == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	cl.renewed = began
	c.claims = append(c.claims, cl)
}

// precede gives up what an ordered consumer has, if it comes after a claim that was taken
// over: that is one of its own, renewed too late, and the rest has to follow it.
func (c *consumer) precede(taken *claim) {
	if taken == nil || !c.ordered {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, held := range c.claims {
		if held.id == taken.id || held.place() > taken.place() {
			c.lose(held)
			return
		}
	}
}

func (c *consumer) adoptExceptions(records []exceptionRecord, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range records {
		e := &exception{id: r.rowID, renewed: began}
		c.exceptions[e.id] = e
		c.push(&item{record: r.record, exception: e})
	}
}

// push appends to ready. Called with mu held.
func (c *consumer) push(it *item) {
	c.nextSeq++
	it.seq = c.nextSeq
	c.ready.push(it)
	token(c.wakeup)
}

// loadMore reads messages of the first claim that has some to read.
func (c *consumer) loadMore(ctx context.Context) (bool, error) {
	c.mu.Lock()
	var cl *claim
	for _, candidate := range c.claims {
		if candidate.loaded < len(candidate.ids) {
			cl = candidate
			break
		}
	}
	c.mu.Unlock()
	if cl == nil {
		return false, nil
	}
	began := time.Now()
	// Nobody else changes loaded.
	records, n, err := c.transport.store.load(ctx, cl.ids[cl.loaded:])
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	smooth(&c.pace.loading, time.Since(began))
	from := cl.loaded
	cl.loaded += n
	if cl.lost {
		return true, nil
	}
	for i := from; i < from+n; i++ {
		if len(records) > 0 && records[0].id == cl.ids[i] {
			r := records[0]
			records = records[1:]
			var late int64
			if cl.late {
				late = cl.places[i]
			}
			if c.group.takes(r.topic, r.id, late) {
				c.push(&item{record: r, claim: cl, index: i})
				continue
			}
		}
		cl.settle(i) // a pattern took too much, or somebody has deleted it
	}
	if cl.left == 0 {
		c.forget(cl)
	}
	if cl.changed {
		c.transport.settler.claim(c, cl)
	}
	return true, nil
}

// activate makes this consumer the active one of an ordered subscription, if it can.
func (c *consumer) activate(ctx context.Context) (bool, error) {
	if !c.transport.first(c) {
		return false, nil
	}
	c.mu.Lock()
	active := c.active
	c.mu.Unlock()
	if active {
		return true, nil
	}
	ok, err := c.transport.store.activate(ctx, c.group, c.transport.owner)
	if ok {
		c.hints.Or(hintAll)
	}
	c.mu.Lock()
	c.inherited = false
	c.active = ok
	c.mu.Unlock()
	return ok, err
}

// activateFirst tries once to activate a consumer that has not begun. If it can't, it
// tries again when it fetches.
func (c *consumer) activateFirst(ctx context.Context) {
	if !c.transport.first(c) {
		return
	}
	err := c.transport.do(ctx, func(ctx context.Context) (err error) {
		c.active, err = c.transport.store.activate(ctx, c.group, c.transport.owner)
		return err
	})
	if err != nil {
		c.active = false
	}
}

// inherit reports whether all claims of an ordered subscription are this consumer's: those
// of who was active before, and those that it has lost itself, are taken over first.
func (c *consumer) inherit(ctx context.Context) (bool, error) {
	c.mu.Lock()
	inherited := c.inherited
	c.inherited = true // a claim that is lost meanwhile says otherwise
	c.mu.Unlock()
	if inherited {
		return true, nil
	}
	others, err := c.transport.store.otherClaims(ctx, c.group, c.heldClaims())
	if err != nil || others {
		c.mu.Lock()
		c.inherited = false
		c.mu.Unlock()
		return false, err
	}
	return true, nil
}

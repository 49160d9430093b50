package sql

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// stockTime is how long what was claimed ahead may wait for a receiver before it is
// given back for others.
const stockTime = time.Second

// cut is the end of a claim that is given back.
type cut struct {
	claim  *claim
	behind int   // index of the last message that stays; -1 gives back the whole claim
	first  int64 // of the rest
	last   int64
}

// giveBack gives away what has been claimed and not delivered, so that others need not
// wait for it: all of it when the consumer ends, and else what its receiver has turned out
// to be too slow for. Only fetch may call it, or who comes after fetch.
func (c *consumer) giveBack(ctx context.Context, ending bool) {
	if c.ephemeral {
		return
	}
	for _, cut := range c.cuts(ending) {
		s := c.transport.store
		var err error
		if cut.behind < 0 {
			err = s.release(ctx, cut.claim, c.transport.owner)
		} else {
			err = s.split(ctx, cut, c.transport.owner)
		}
		c.mu.Lock()
		if err != nil { // whether it is split is not known, so nothing more may be written of it
			s.log.Warn("what was claimed can't be given back and waits for the end of its lease", "subscription", c.group.name, "error", err)
			c.lose(cut.claim)
		}
		cut.claim.cutting = false
		if cut.claim.changed {
			c.transport.settler.claim(c, cut.claim)
		}
		c.mu.Unlock()
	}
}

// cuts takes from the consumer what it is to give back.
func (c *consumer) cuts(ending bool) []cut {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !ending && !c.overstocked(time.Now()) {
		return nil
	}
	byPlace := make(map[*claim]map[int]bool, len(c.claims))
	for _, cl := range c.claims {
		byPlace[cl] = make(map[int]bool)
	}
	for _, it := range c.ready.items[c.ready.head:] {
		if at, ok := byPlace[it.claim]; ok {
			at[it.index] = true
		}
	}
	var cuts []cut
	for _, cl := range append([]*claim(nil), c.claims...) {
		behind := cl.loaded - 1
		for behind >= 0 && byPlace[cl][behind] {
			behind--
		}
		if behind == len(cl.ids)-1 {
			continue
		}
		c.ready.drop(func(it *item) bool { return it.claim == cl && it.index > behind })
		cut := cut{claim: cl, behind: behind, last: cl.last}
		cl.cutting = true
		if behind < 0 {
			c.forget(cl)
		} else {
			cut.first = cl.places[behind]
			cl.truncate(behind + 1)
			if cl.left == 0 {
				c.forget(cl)
			}
		}
		cuts = append(cuts, cut)
	}
	return cuts
}

// overstocked reports whether what is ready lasts longer than stockTime. Called with mu held.
func (c *consumer) overstocked(now time.Time) bool {
	c.pace.sample(now)
	return c.ready.len() > 0 && float64(c.ready.len()) > c.pace.rate*stockTime.Seconds()
}

// truncate keeps the first n messages of a claim.
func (c *claim) truncate(n int) {
	c.places, c.ids, c.settled = c.places[:n], c.ids[:n], c.settled[:n]
	c.last, c.loaded, c.left = c.places[n-1], n, 0
	for _, settled := range c.settled {
		if !settled {
			c.left++
		}
	}
	c.changed = true
}

// split makes the rest of a claim one without an owner.
func (s *store) split(ctx context.Context, c cut, owner string) error {
	return s.inTx(ctx, func(tx Tx) error {
		n, err := s.exec(ctx, tx, `update {claims} set last = ? where id = ? and owner = ?`, c.first, c.claim.id, owner)
		if err == nil && n == 0 {
			err = errors.New("the lease has ended")
		}
		if err != nil {
			return err
		}
		_, err = s.exec(ctx, tx, `
insert into {claims} (id, subscription_id, late, first, last, bound, settled, owner, lease_ms)
select {param int}, subscription_id, late, {param int}, {param int}, bound, {param bytes}, '', 0 from {claims} where id = ?`,
			rand.Int64(), c.first, c.last, []byte{}, c.claim.id)
		return err
	})
}

// release gives back a claim, with what of it is settled.
func (s *store) release(ctx context.Context, c *claim, owner string) error {
	first, settled := c.progress()
	_, err := s.exec(ctx, s.db, `update {claims} set owner = '', lease_ms = 0, first = ?, settled = ? where id = ? and owner = ?`,
		first, settled, c.id, owner)
	return err
}

// finish writes the last of a consumer that has settled all that was delivered: what is
// settled, and what goes back.
func (c *consumer) finish() {
	ctx, cancel := lastly()
	defer cancel()
	t := c.transport
	errs := []error{t.settler.flush(ctx)}
	c.mu.Lock()
	claims, exceptions := c.claims, make([]int64, 0, len(c.exceptions))
	for id := range c.exceptions {
		exceptions = append(exceptions, id)
	}
	c.claims, c.exceptions = nil, nil
	active := c.active
	c.mu.Unlock()
	for _, cl := range claims {
		if cl.id != 0 {
			errs = append(errs, t.store.release(ctx, cl, t.owner))
		}
	}
	if len(exceptions) > 0 {
		_, err := t.store.exec(ctx, t.store.db, `update {deliveries} set owner = '', due_ms = {now} where id in (`+idList(exceptions)+`) and owner = ? and state = 0`, t.owner)
		errs = append(errs, err)
	}
	switch {
	case c.ephemeral:
		errs = append(errs, t.store.inTx(ctx, func(tx Tx) error { return t.store.removeGroup(ctx, tx, c.group.id) }))
	case active:
		errs = append(errs, t.store.deactivate(ctx, c.group, t.owner))
	}
	if err := errors.Join(errs...); err != nil {
		t.store.log.Warn("a consumer could not give back what it had; it waits for the end of the lease", "subscription", c.group.name, "error", err)
	}
}

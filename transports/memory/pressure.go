package memory

import (
	"slices"
	"time"
)

// waiter is a publish that waits for room in all of its targets. Guarded by
// Broker.mu; admitted is closed once the record is in every queue.
type waiter struct {
	rec      *record
	delay    time.Duration
	targets  []*queue
	passed   []*queue // where it has had its turn already
	queue    *queue   // the full queue that it waits in; nil when it was admitted
	admitted chan struct{}
}

func (w *waiter) waitIn(q *queue) {
	w.queue = q
	q.waiters = append(q.waiters, w)
}

func (w *waiter) withdraw() {
	w.queue.waiters = slices.DeleteFunc(w.queue.waiters, func(o *waiter) bool { return o == w })
	w.queue = nil
}

// admit puts w into its queues, or makes it wait for the next that is full.
//
// It holds no place while it waits: that is how room is taken everywhere or
// nowhere. So the room in one queue is gone when it gets its turn in another,
// and between two that others keep full it would go back and forth for ever.
// That is why it has its turn in each queue once, full again or not. The bound
// is exceeded by no more messages than publishers wait, who have them in memory
// anyway.
func (w *waiter) admit() {
	if full := w.bottleneck(); full != nil {
		w.waitIn(full)
		return
	}
	for _, q := range w.targets {
		if !q.gone {
			q.add(w.rec, w.delay)
		}
	}
	close(w.admitted)
}

// bottleneck returns the queue to wait in. Those that are gone are empty and
// without debts, so they don't count.
func (w *waiter) bottleneck() *queue { return bottleneck(w.targets, w.passed) }

// admitWaiters takes in the publishers that there is room for now. One that
// finds another of its queues full goes on to wait there, so that the room here
// is for the next.
func (q *queue) admitWaiters() {
	for len(q.waiters) > 0 && (q.gone || !q.full()) {
		w := q.waiters[0]
		q.waiters[0] = nil
		q.waiters = q.waiters[1:]
		w.queue = nil
		w.passed = append(w.passed, q)
		w.admit()
	}
}

// bottleneck returns the first full queue that a publisher to targets has to
// wait for, or nil: one of them, or one that they are in debt to. Those passed
// don't count.
func bottleneck(targets, passed []*queue) *queue {
	all := reachable(targets, func(q *queue) []*queue { return q.debts })
	room := true
	for _, q := range all {
		if !q.full() {
			continue
		}
		if !slices.Contains(passed, q) {
			return q
		}
		room = false
	}
	if room { // all the way, so that all debts are settled
		for _, q := range all {
			q.debts = nil
		}
	}
	return nil
}

// spill is called when a handler of q publishes into a queue, which takes the
// message over its bound if need be.
//
// When it is full, q is held: nothing of it is delivered until there is room.
// Holds form a graph without circles, so that somebody can always go on. A hold
// that would close one, that of a queue on itself included, is not made; q goes
// into debt instead: it goes on, and takes nothing from publishers outside of
// handlers until there is room. Without that a circle fills up: all that leaves
// q for the circle would be replaced from outside, faster than it comes round.
// For the same reason q is in debt to a queue that is in debt itself.
func (q *queue) spill(into *queue) {
	switch {
	case q.gone || slices.Contains(q.holds, into):
	case into.full() && !into.waitsFor(q):
		q.holds = append(q.holds, into)
		into.holding = append(into.holding, q)
	case q == into || slices.Contains(q.debts, into):
	case into.full() || len(into.debts) > 0 && bottleneck(into.debts, nil) != nil:
		q.debts = append(q.debts, into)
	}
}

// waitsFor reports whether q is other, or is held back by it directly or not.
func (q *queue) waitsFor(other *queue) bool {
	held := reachable([]*queue{q}, func(q *queue) []*queue { return q.holds })
	return slices.Contains(held, other)
}

// letGo ends the holds on the queues that wait for room in q.
func (q *queue) letGo() {
	for _, held := range q.holding {
		held.holds = slices.DeleteFunc(held.holds, func(o *queue) bool { return o == q })
		if len(held.holds) == 0 {
			held.wake()
		}
	}
	q.holding = nil
}

// reachable returns start and all that edges lead to from there, nearest first.
func reachable(start []*queue, edges func(*queue) []*queue) []*queue {
	all := slices.Clip(start) // append copies it
	for i := 0; i < len(all); i++ {
		for _, q := range edges(all[i]) {
			if !slices.Contains(all, q) {
				all = append(all, q)
			}
		}
	}
	return all
}

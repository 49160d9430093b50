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
	queue    *queue // the full queue that it waits in; nil when it was admitted
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

// admitWaiters takes in the publishers that there is room for now. One that
// finds another of its queues full goes on to wait there, so that the room here
// is for the next: that is how room is taken everywhere or nowhere without
// anyone holding a place while they wait.
func (q *queue) admitWaiters() {
	for len(q.waiters) > 0 && (q.gone || !q.full()) {
		w := q.waiters[0]
		q.waiters[0] = nil
		q.waiters = q.waiters[1:]
		targets := slices.DeleteFunc(slices.Clone(w.targets), func(t *queue) bool { return t.gone })
		if full := firstFull(targets); full != nil {
			w.waitIn(full)
			continue
		}
		for _, t := range targets {
			t.add(w.rec, w.delay)
		}
		w.queue = nil
		close(w.admitted)
	}
}

// holdFor holds q back until the queue that its handlers overflow has room
// again. The holds form a graph without circles, so somebody can always go on:
// a hold that would close a circle, that of a queue on itself included, is not
// made.
func (q *queue) holdFor(overflowing *queue) {
	if q.gone || overflowing.waitsFor(q) || slices.Contains(q.holds, overflowing) {
		return
	}
	q.holds = append(q.holds, overflowing)
	overflowing.holding = append(overflowing.holding, q)
}

// waitsFor reports whether q is other, or is held back by it directly or not.
func (q *queue) waitsFor(other *queue) bool {
	return q == other || slices.ContainsFunc(q.holds, func(h *queue) bool { return h.waitsFor(other) })
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

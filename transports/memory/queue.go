package memory

import (
	"container/heap"
	"slices"
	"time"

	"github.com/gotidings/tidings/transports"
)

// queue is a subscription's messages. All of it is guarded by Broker.mu.
//
// An entry is in ready, in delayed, or in flight with a consumer; used counts
// all three and bounds the queue. Invariant: a queue with waiting publishers is
// full.
type queue struct {
	broker *Broker
	name   string
	topics []string

	ephemeral bool // belongs to one consumer
	gone      bool // removed; what is still in flight settles into nothing

	used       int
	nextSeq    uint64
	ready      deque
	delayed    delayHeap
	backingOff int         // entries of delayed that were nacked
	timer      *time.Timer // for the first of delayed; nil until there is one
	poisoned   []poisonedRecord

	waiters   []*waiter   // publishers waiting for room here, first come first
	consumers []*consumer // every one that takes from here

	holds   []*queue // overflowed by our handlers: nothing is delivered until they have room
	holding []*queue // the reverse: held back because of us
	debts   []*queue // overflowed too, without a hold: no publisher is admitted until they have room
}

// A message that its receivers nack comes back at once, from the tenth time on after nackDelay:
// it must neither be redelivered as fast as possible nor keep others from being delivered.
const (
	nacksAtOnce = 10
	nackDelay   = time.Second
)

// entry is a record at its place in one queue.
type entry struct {
	rec   *record
	seq   uint64    // place in the queue
	nacks int       // by receivers
	due   time.Time // of a delayed one
}

func newQueue(b *Broker, name string) *queue { return &queue{broker: b, name: name} }

func (q *queue) matches(topic string) bool {
	return slices.ContainsFunc(q.topics, func(p string) bool { return transports.Match(p, topic) })
}

func (q *queue) full() bool { return q.used >= q.broker.cfg.QueueSize }

// add takes a record in, without regard to the bound.
func (q *queue) add(rec *record, delay time.Duration) {
	q.used++
	q.broker.hold(1)
	if delay <= 0 {
		q.append(rec)
		return
	}
	heap.Push(&q.delayed, entry{rec: rec, seq: q.seq(), due: time.Now().Add(delay)})
	q.armTimer()
}

// append makes a record the last that is ready.
func (q *queue) append(rec *record) {
	q.ready.pushBack(entry{rec: rec, seq: q.seq()})
	q.wake()
}

func (q *queue) seq() uint64 {
	q.nextSeq++
	return q.nextSeq
}

// putBack returns a delivered entry to its old place.
func (q *queue) putBack(e entry) {
	if q.gone {
		return
	}
	q.ready.insert(e)
	q.wake()
}

// nacked returns an entry that a receiver has nacked to its old place, at once or after
// nackDelay.
func (q *queue) nacked(e entry) {
	e.nacks++
	if q.gone || e.nacks < nacksAtOnce {
		q.putBack(e)
		return
	}
	e.due = time.Now().Add(nackDelay)
	q.backingOff++
	heap.Push(&q.delayed, e)
	q.armTimer()
}

// release frees the place of an acknowledged entry.
func (q *queue) release() {
	if q.gone {
		return
	}
	q.used--
	if !q.full() {
		q.letGo() // before the room goes to a publisher: where there is always one, handlers would be held for ever
	}
	q.admitWaiters()
	q.broker.hold(-1) // last, or the broker would seem idle between two messages
}

// wake tells consumers that there may be something to deliver. Those at their limit
// look for themselves when they have room, see done.
func (q *queue) wake() {
	for _, c := range q.consumers {
		if c.inFlight < c.limit {
			c.wakeUp()
		}
	}
}

// armTimer sets the timer to the first delayed entry.
func (q *queue) armTimer() {
	if len(q.delayed) == 0 {
		return
	}
	wait := time.Until(q.delayed[0].due)
	if q.timer == nil {
		q.timer = q.broker.after(wait, q.ripen)
		return
	}
	q.timer.Reset(wait)
}

// ripen moves the delayed entries whose time has come to ready: nacked ones to their old
// places, others to the end.
func (q *queue) ripen() {
	if q.gone {
		return
	}
	now := time.Now()
	for len(q.delayed) > 0 && !q.delayed[0].due.After(now) {
		e := heap.Pop(&q.delayed).(entry)
		if e.nacks == 0 {
			q.append(e.rec)
			continue
		}
		q.backingOff--
		q.putBack(e)
	}
	q.armTimer()
}

// remove empties the queue for good and lets everybody go who waits for it.
func (q *queue) remove() {
	q.gone = true
	if q.timer != nil {
		q.timer.Stop()
	}
	dropped := q.used
	q.used = 0
	q.ready, q.delayed, q.poisoned = deque{}, nil, nil
	q.admitWaiters()
	q.broker.hold(-dropped)
	q.letGo()
	for _, held := range q.holds {
		held.holding = slices.DeleteFunc(held.holding, func(o *queue) bool { return o == q })
	}
	q.holds, q.debts = nil, nil
	for _, c := range q.consumers {
		c.stopIntake()
	}
}

// delayHeap is a min-heap by due time, and by place among equals.
type delayHeap []entry

func (h delayHeap) Len() int { return len(h) }
func (h delayHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].seq < h[j].seq
	}
	return h[i].due.Before(h[j].due)
}
func (h delayHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *delayHeap) Push(x any)   { *h = append(*h, x.(entry)) }
func (h *delayHeap) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = entry{} // lets the record be collected
	*h = (*h)[:len(*h)-1]
	return last
}

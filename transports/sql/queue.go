package sql

import "slices"

// queue is a line of items in ascending order of seq.
type queue struct {
	items []*item
	head  int // index of the first
}

func (q *queue) len() int { return len(q.items) - q.head }

// push appends an item, whose seq is the highest so far.
func (q *queue) push(it *item) { q.items = append(q.items, it) }

// pop takes the first item, nil when there is none.
func (q *queue) pop() *item {
	if q.len() == 0 {
		q.items, q.head = q.items[:0], 0
		return nil
	}
	it := q.items[q.head]
	q.items[q.head] = nil
	q.head++
	return it
}

// insert puts an item at its place, looking from the front: what comes back was there before.
func (q *queue) insert(it *item) {
	at := q.head
	for at < len(q.items) && q.items[at].seq < it.seq {
		at++
	}
	if q.head == 0 {
		q.items = slices.Insert(q.items, at, it)
		return
	}
	q.head--
	copy(q.items[q.head:at-1], q.items[q.head+1:at])
	q.items[at-1] = it
}

// drop removes the items that fn chooses.
func (q *queue) drop(fn func(*item) bool) {
	kept := slices.DeleteFunc(slices.Clone(q.items[q.head:]), fn)
	q.items, q.head = kept, 0
}

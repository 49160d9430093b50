package middleware

import (
	"hash/maphash"
	"time"
)

// handledEvents remembers the keys of the last handled events. Most of them are never
// asked for again, so the index has no more than what finds them: a hash, of which the
// garbage collector need not know, and the place in the ring, where the whole key is.
//
// Of two keys with one hash the index has the later one; the earlier one is forgotten
// before its time. Nothing is ever taken for a duplicate by its hash alone.
type handledEvents struct {
	size   int
	hash   func(DedupKey) uint64
	byHash map[uint64]uint32 // to the place in ring

	ring     []handledEvent // in the order of completion
	first, n int            // of ring
}

type handledEvent struct {
	key  DedupKey
	hash uint64
	at   time.Time
}

// newHandledEvents makes an empty memory of up to size events, with a hash that nobody
// outside can foresee.
func newHandledEvents(size int) handledEvents {
	seed := maphash.MakeSeed()
	return handledEvents{size: size, byHash: make(map[uint64]uint32), hash: func(key DedupKey) uint64 {
		var h maphash.Hash
		h.SetSeed(seed)
		for _, part := range [...]string{key.Subscription, key.Event.Source, key.Event.ID, key.Replay} {
			_, _ = h.WriteString(part) // never fails
			_ = h.WriteByte(0)
		}
		return h.Sum64()
	}}
}

func (h *handledEvents) contains(key DedupKey) bool {
	i, ok := h.byHash[h.hash(key)]
	return ok && h.ring[i].key == key
}

// add remembers a key that is not known yet, and forgets the oldest when there are too many.
func (h *handledEvents) add(key DedupKey) {
	if h.n == h.size {
		h.forgetFirst()
	}
	if h.n == len(h.ring) {
		h.grow()
	}
	i := (h.first + h.n) % len(h.ring)
	h.ring[i] = handledEvent{key: key, hash: h.hash(key), at: time.Now()}
	h.byHash[h.ring[i].hash] = uint32(i) //nolint:gosec // a ring of 4 billion does not fit into the memory
	h.n++
}

// expire forgets what is older than the retention.
func (h *handledEvents) expire(retention time.Duration) {
	if h.n == 0 {
		return
	}
	oldest := time.Now().Add(-retention)
	for h.n > 0 && h.ring[h.first].at.Before(oldest) {
		h.forgetFirst()
	}
}

func (h *handledEvents) forgetFirst() {
	oldest := &h.ring[h.first]
	if h.byHash[oldest.hash] == uint32(h.first) { //nolint:gosec // as above; else it is the place of a later one
		delete(h.byHash, oldest.hash)
	}
	*oldest = handledEvent{}
	h.first = (h.first + 1) % len(h.ring)
	h.n--
}

// grow makes room for more, up to size.
func (h *handledEvents) grow() {
	bigger := make([]handledEvent, min(max(64, 2*h.n), h.size))
	for i := range h.n { // oldest first, so that the index ends with the later of two with one hash
		bigger[i] = h.ring[(h.first+i)%len(h.ring)]
		h.byHash[bigger[i].hash] = uint32(i) //nolint:gosec // as above
	}
	h.ring, h.first = bigger, 0
}

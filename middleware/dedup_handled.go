package middleware

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"time"
)

// handledEvents remembers the keys of the last handled events. Most of them are never
// asked for again, so there is no more than what finds them: a hash, and where the whole
// key is. Nothing in it is a pointer that the garbage collector would have to follow, and
// nothing is moved when it grows.
//
// Of two keys with one hash the index has the later one; the earlier one is forgotten
// before its time. Nothing is ever taken for a duplicate by its hash alone.
type handledEvents struct {
	size      int
	retention time.Duration
	start     time.Time // what handledEvent.at counts from

	byHash      map[uint64]uint64 // to the number of the event, which counts from 0 on
	first, next uint64            // number of the oldest one remembered, and of the next one
	blocks      []*handledBlock   // of the events from first on
	spare       *handledBlock     // nil, or one that all are forgotten of, to be used again
}

// blockSize is how many events a block has.
const blockSize = 512

type handledBlock struct {
	keys   []byte // one after the other
	events [blockSize]handledEvent
}

type handledEvent struct {
	hash uint64
	at   time.Duration // when it was handled, since handledEvents.start
	end  uint32        // of its key, which begins where the one before ends
}

// newHandledEvents makes an empty memory of up to size events.
func newHandledEvents(size int, retention time.Duration) handledEvents {
	return handledEvents{size: size, retention: retention, start: time.Now(), byHash: make(map[uint64]uint64)}
}

// contains reports whether the event with a key, and its hash, was handled.
func (h *handledEvents) contains(key []byte, hash uint64) bool {
	n, ok := h.byHash[hash]
	if !ok {
		return false
	}
	block, i := h.at(n)
	return bytes.Equal(block.key(i), key) && time.Since(h.start)-block.events[i].at <= h.retention
}

// add remembers an event that is not known yet, and forgets the oldest when there are too
// many, and those that are too old.
func (h *handledEvents) add(key []byte, hash uint64) {
	now := time.Since(h.start)
	for h.first < h.next && (h.next-h.first == uint64(h.size) || h.tooOld(now)) { //nolint:gosec // size is positive
		h.forgetFirst()
	}
	if h.next%blockSize == 0 {
		h.blocks = append(h.blocks, h.newBlock())
	}
	block, i := h.at(h.next)
	block.keys = append(block.keys, key...)
	block.events[i] = handledEvent{hash: hash, at: now, end: uint32(len(block.keys))} //nolint:gosec // keys are short
	h.byHash[hash] = h.next
	h.next++
}

func (h *handledEvents) newBlock() *handledBlock {
	if block := h.spare; block != nil {
		h.spare = nil
		return block
	}
	room := blockSize * 64
	if len(h.blocks) > 0 { // keys are as long as those before, more or less
		room = len(h.blocks[len(h.blocks)-1].keys) * 17 / 16
	}
	return &handledBlock{keys: make([]byte, 0, room)}
}

// at returns where the event of a number is, or the next one.
func (h *handledEvents) at(n uint64) (block *handledBlock, i int) {
	return h.blocks[n/blockSize-h.first/blockSize], int(n % blockSize) //nolint:gosec // less than blockSize
}

func (b *handledBlock) key(i int) []byte {
	var begin uint32
	if i > 0 {
		begin = b.events[i-1].end
	}
	return b.keys[begin:b.events[i].end]
}

// tooOld reports whether the oldest event has been remembered for long enough.
func (h *handledEvents) tooOld(now time.Duration) bool {
	block, i := h.at(h.first)
	return now-block.events[i].at > h.retention
}

func (h *handledEvents) forgetFirst() {
	block, i := h.at(h.first)
	if hash := block.events[i].hash; h.byHash[hash] == h.first { // else it is the number of a later one
		delete(h.byHash, hash)
	}
	h.first++
	if h.first%blockSize == 0 {
		block.keys = block.keys[:0]
		h.spare = block
		h.blocks[0] = nil
		h.blocks = h.blocks[1:]
	}
}

// keyHasher writes keys as bytes, which are as different as the keys, and hashes those, in
// a way that nobody outside can foresee.
type keyHasher struct {
	seed  maphash.Seed
	bytes []byte // of the last key
}

func (k *keyHasher) hash(key DedupKey) ([]byte, uint64) {
	k.bytes = k.bytes[:0]
	for _, part := range [...]string{key.Subscription, key.Event.Source, key.Event.ID, key.Replay} {
		k.bytes = binary.AppendUvarint(k.bytes, uint64(len(part)))
		k.bytes = append(k.bytes, part...)
	}
	return k.bytes, maphash.Bytes(k.seed, k.bytes)
}

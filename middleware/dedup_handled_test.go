package middleware

import (
	"hash/maphash"
	"strconv"
	"testing"
	"time"

	"github.com/gotidings/tidings/transports"
)

// With so few hashes that nearly all collide, events may be forgotten early. None is taken for
// another, none is remembered for too long, and the last ones always are.
func TestHandledEventsAreNotTakenForOneAnotherByTheirHash(t *testing.T) {
	t.Parallel()
	for _, hashes := range []int{1, 2, 7, 1_000_000} {
		t.Run(strconv.Itoa(hashes), func(t *testing.T) {
			t.Parallel()
			const size = 100
			h := newHandledEvents(size, time.Hour)
			key := func(n int) (text []byte, hash uint64) {
				return []byte(strconv.Itoa(n)), uint64(n % hashes) //nolint:gosec // positive
			}
			for n := range 30 * size {
				if h.contains(key(n)) {
					t.Fatalf("%d was taken for another", n)
				}
				h.add(key(n))
				for back := range min(hashes, size, n+1) {
					if !h.contains(key(n - back)) {
						t.Fatalf("%d is forgotten after %d", n-back, n)
					}
				}
				if n >= size && h.contains(key(n-size)) {
					t.Fatalf("%d is remembered beside the last %d", n-size, size)
				}
				if len(h.byHash) > min(hashes, size) || h.next-h.first > size || len(h.blocks) > 2 {
					t.Fatalf("%d hashes of %d events are kept, in %d blocks", len(h.byHash), h.next-h.first, len(h.blocks))
				}
			}
		})
	}
}

// The parts of a key are hashed with what separates them, and each of them counts.
func TestKeyHasherHashesTheWholeKey(t *testing.T) {
	t.Parallel()
	h := keyHasher{seed: maphash.MakeSeed()}
	seen := make(map[uint64]DedupKey)
	for _, key := range []DedupKey{
		{Subscription: "ab", Event: transports.EventKey{Source: "c", ID: "d"}},
		{Subscription: "a", Event: transports.EventKey{Source: "bc", ID: "d"}},
		{Subscription: "a", Event: transports.EventKey{Source: "b", ID: "cd"}},
		{Subscription: "ab", Event: transports.EventKey{Source: "c", ID: "e"}},
		{Subscription: "ab", Event: transports.EventKey{Source: "x", ID: "d"}},
		{Subscription: "ab", Event: transports.EventKey{Source: "c", ID: "d"}, Replay: "r"},
		{Subscription: "xy", Event: transports.EventKey{Source: "c", ID: "d"}},
	} {
		_, hash := h.hash(key)
		if other, taken := seen[hash]; taken {
			t.Errorf("%+v has the hash of %+v", key, other)
		}
		seen[hash] = key
		if _, again := h.hash(key); again != hash {
			t.Errorf("%+v has two hashes", key)
		}
	}
}

// Package poisoned says which messages of a poison queue are copies of one event.
package poisoned

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Digest identifies the content of an event.
type Digest [16]byte

// Of returns the digest of a message's id, topic, payload and metadata. The library's own
// headers, which differ from one failure to the next, are not part of it.
//
// A crash between Poison and the acknowledgement leaves copies, which have the same digest.
// Two messages with the same id and another content are two events.
func Of(msg *message.Message) Digest {
	h := sha256.New()
	Write(h, msg.UUID, transports.Topic(msg), string(msg.Payload))
	for _, key := range slices.Sorted(maps.Keys(msg.Metadata)) {
		if !strings.HasPrefix(key, transports.HeaderPrefix) {
			Write(h, key, msg.Metadata[key])
		}
	}
	return Sum(h)
}

// Write adds texts to a hash, each with its length, so that "ab", "c" and "a", "bc" differ.
func Write(h hash.Hash, texts ...string) {
	var length [8]byte
	for _, s := range texts {
		binary.LittleEndian.PutUint64(length[:], uint64(len(s)))
		_, _ = h.Write(length[:]) // a hash returns no error
		_, _ = io.WriteString(h, s)
	}
}

// Sum returns the digest of what was written to a SHA-256 hash.
func Sum(h hash.Hash) (d Digest) {
	copy(d[:], h.Sum(nil))
	return d
}

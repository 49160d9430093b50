package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/gotidings/tidings/events"
)

// key returns the idempotency key of an effect of the event that ctx is from;
// doc.go says what it promises. Users keep keys in their databases, so what it
// returns for given arguments can never change.
//
// It is a hash because source and id are any text of any length, and a key that
// a database cuts off, or that a header can't carry, is taken for another one.
func key(ctx context.Context, effect string) string {
	md, _ := events.MetadataFrom(ctx)
	if md.ID == "" {
		// An empty id in the key would make one event of all that have none,
		// and only the first of them would have its effect.
		md.ID = events.NewID()
	}
	h := sha256.New()
	for _, part := range [...]string{effect, md.Source, md.ID} {
		fmt.Fprintf(h, "%d:%s", len(part), part) // the length keeps "a"+"bc" and "ab"+"c" apart
	}
	return hex.EncodeToString(h.Sum(nil))
}

package eventstore

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	tsql "github.com/gotidings/tidings/transports/sql"
)

// Config configures a [Store]. The zero value is a store in memory.
type Config struct {
	// Log has the events: the transport of the bus itself, [outbox.Outbox.Transport], or, for
	// a bus on another transport, one with a Prefix or Schema of its own that [Store.Record]
	// writes to. Its retention is the store's. It is not closed by [Store.Close]. nil keeps
	// the events in memory, for tests.
	//
	// [outbox.Outbox.Transport]: https://pkg.go.dev/github.com/gotidings/tidings/outbox#Outbox.Transport
	Log *tsql.Transport

	// Index has the store keep an index of ids, subjects, correlation and causation ids in a
	// table of its own, which it makes. Without it, queries for those go through all the
	// events of the time range. The index follows the log, so that publishing does not wait
	// for it; a query waits until it is complete. A store in memory always has one.
	Index bool

	// Seal has the store chain digests of the events in a table of its own, which it makes,
	// so that [Store.Verify] finds what was changed. It needs a Log.
	Seal bool

	// SealKey, if set, makes the digests depend on a secret (HMAC): who may write to the
	// database, and does not know the secret, can't make a chain that fits. Without it, who
	// changes events and all the digests after them is found out only by a head that was kept
	// elsewhere, see [VerifyOptions]. At least 16 bytes.
	SealKey []byte

	// FollowInterval is how often index and seals are brought up to the end of the log. 0
	// means 1 s; a negative one means never, and that [Store.CatchUp] is called instead.
	FollowInterval time.Duration

	// MaxEvents is how many events a store in memory keeps; the oldest go first. 0 means
	// 100,000.
	MaxEvents int

	// Retention is how long a store in memory keeps events. 0 means for ever. With a Log it
	// is that of the log.
	Retention time.Duration

	// Logger is told of index and seals that can't be brought up. nil discards.
	Logger *slog.Logger
}

const minSealKey = 16

func (c Config) withDefaults() Config {
	if c.FollowInterval == 0 {
		c.FollowInterval = time.Second
	}
	if c.MaxEvents == 0 {
		c.MaxEvents = 100_000
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Seal && c.Log == nil {
		fault("Seal is set; a store in memory has nothing to seal, set Log")
	}
	if len(c.SealKey) > 0 && !c.Seal {
		fault("SealKey is set, and Seal is not")
	}
	if n := len(c.SealKey); n > 0 && n < minSealKey {
		fault("SealKey has %d bytes; it takes at least %d", n, minSealKey)
	}
	if c.MaxEvents < 0 {
		fault("MaxEvents is %d; it takes at least 1, or 0 for the default", c.MaxEvents)
	}
	if c.Retention < 0 {
		fault("Retention is %s; it can't be negative", c.Retention)
	}
	if c.Log != nil && c.Retention != 0 {
		fault("Retention is set; with a Log it is the field Retention of that transport's configuration")
	}
	return errors.Join(faults...)
}

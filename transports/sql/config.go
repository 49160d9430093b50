package sql

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/gotidings/tidings/transports"
)

// Config configures a [Transport]. The zero value is ready to use.
type Config struct {
	// Dialect is the kind of the database. "" asks the database.
	Dialect Dialect

	// Schema is the PostgreSQL schema of the tables; it is made when it does not
	// exist. "" means the first of the connection's search_path. Other databases
	// have none.
	Schema string

	// Prefix begins the names of the tables, of at most 32 bytes. "" means "tidings_".
	Prefix string

	// NoMigrate makes New check the tables instead of making them: the team runs
	// [Migrate], or what [MigrationSQL] prints, itself.
	NoMigrate bool

	// MaxMessageBytes is the largest payload that Publish takes, in bytes. 0 means
	// [transports.DefaultMaxMessageBytes], or what the server takes when that is less.
	MaxMessageBytes int

	// Lease is how long what a process has claimed stays with it when it is not heard
	// of any more. It is renewed three times as often. 0 means 30 s; at least 1 s.
	Lease time.Duration

	// PollInterval is how often an idle process looks for what others have published.
	// A busy one looks every 10 ms. 0 means 250 ms; more than 1 s is 1 s.
	PollInterval time.Duration

	// Retention is how long messages are kept, whether or not anybody needs them any
	// more. What a subscription has still to handle is never deleted. 0 means 7 days;
	// a negative one means for ever.
	Retention time.Duration

	// LagWarning is the age of the oldest message that a subscription has not taken,
	// above which a warning is logged, once an hour. 0 means 24 hours; a negative one
	// means never.
	LagWarning time.Duration

	// ExpireAfter removes a durable subscription that nobody has consumed for so long,
	// with all that waits in it, so that it can't stop retention for ever. 0 means never.
	ExpireAfter time.Duration

	// Notify has the process tell others of what it has published, with PostgreSQL's
	// NOTIFY, at most 200 times a second. Those that listen, see package pgnotify, need
	// not wait for their next poll. Other databases have nothing like it.
	Notify bool

	// Logger is told of lags, lost leases and faults of the database. nil discards.
	Logger *slog.Logger
}

// Bounds of names, in bytes. Names are part of index keys, which databases limit, and
// nothing is ever cut off: what is longer is refused.
const (
	maxNameBytes   = 1000
	maxPrefixBytes = 32
	minLease       = time.Second
)

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "tidings_"
	}
	if c.Lease == 0 {
		c.Lease = 30 * time.Second
	}
	if c.PollInterval == 0 {
		c.PollInterval = 250 * time.Millisecond
	}
	if c.Retention == 0 {
		c.Retention = 7 * 24 * time.Hour
	}
	if c.LagWarning == 0 {
		c.LagWarning = 24 * time.Hour
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	switch c.Dialect {
	case "", Postgres, MySQL, SQLite:
	default:
		fault("Dialect is %q; it takes %q, %q or %q, or \"\" to ask the database", c.Dialect, Postgres, MySQL, SQLite)
	}
	if c.Schema != "" && c.Dialect != "" && c.Dialect != Postgres {
		fault("Schema is %q; only PostgreSQL has schemas, elsewhere Prefix tells tables apart", c.Schema)
	}
	if c.Notify && c.Dialect != "" && c.Dialect != Postgres {
		fault("Notify is set; only PostgreSQL can")
	}
	if len(c.Prefix) > maxPrefixBytes {
		fault("Prefix has %d bytes; it takes at most %d", len(c.Prefix), maxPrefixBytes)
	}
	if len(c.Schema) > maxPrefixBytes {
		fault("Schema has %d bytes; it takes at most %d", len(c.Schema), maxPrefixBytes)
	}
	for _, name := range []string{c.Prefix, c.Schema} {
		if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '{' || r == '}' || r == '?' || r == 0xFFFD }) {
			fault("the name %q has a character that it can't have", name)
		}
	}
	if c.MaxMessageBytes < 0 {
		fault("MaxMessageBytes is %d; it takes at least 1, or 0 for the default", c.MaxMessageBytes)
	}
	if c.Lease != 0 && c.Lease < minLease {
		fault("Lease is %s; it takes at least %s, or 0 for the default", c.Lease, minLease)
	}
	if c.PollInterval < 0 {
		fault("PollInterval is %s; it can't be negative", c.PollInterval)
	}
	if c.ExpireAfter < 0 {
		fault("ExpireAfter is %s; it can't be negative", c.ExpireAfter)
	}
	return errors.Join(faults...)
}

// maxMessageBytes is the limit where the server takes no more than so much, 0 if it
// does not say.
func (c Config) maxMessageBytes(server int) int {
	limit := c.MaxMessageBytes
	if limit == 0 {
		limit = transports.DefaultMaxMessageBytes
		if server > 0 {
			limit = min(limit, server)
		}
	}
	return limit
}

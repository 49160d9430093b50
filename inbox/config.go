package inbox

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	tsql "github.com/gotidings/tidings/transports/sql"
)

// Config configures an [Inbox]. DB is required; the rest has defaults.
type Config struct {
	// DB is the database that handlers write to. It stays open when the inbox is closed.
	DB *sql.DB

	// Dialect is the kind of the database. "" asks the database.
	Dialect tsql.Dialect

	// Schema is the PostgreSQL schema of the table; it is made when it does not exist.
	// "" means the first of the connection's search_path. Other databases have none.
	Schema string

	// Prefix begins the name of the table, of at most 32 bytes. "" means "tidings_",
	// which makes it tidings_inbox.
	Prefix string

	// NoMigrate makes New check the table instead of making it: the team runs what
	// [MigrationSQL] prints itself.
	NoMigrate bool

	// Isolation is that of handlers' transactions. The zero value means READ COMMITTED,
	// where the database has it.
	Isolation sql.IsolationLevel

	// Retention is how long it is remembered that an event was handled. It has to be
	// longer than the longest retry, which a bus checks at its start. 0 means 7 days.
	Retention time.Duration

	// Lease is how long a claim of the deduplication middleware lasts that is not
	// renewed; it is renewed three times as often. 0 means 30 s; at least 1 s.
	Lease time.Duration

	// CleanupInterval is how often what is older than Retention is deleted. 0 means 1
	// minute; a negative one means never, for teams that do it themselves.
	CleanupInterval time.Duration

	// Logger is told of faults of the clean-up. nil discards.
	Logger *slog.Logger
}

const (
	maxPrefixBytes = 32
	minLease       = time.Second
)

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "tidings_"
	}
	if c.Retention == 0 {
		c.Retention = 7 * 24 * time.Hour
	}
	if c.Lease == 0 {
		c.Lease = 30 * time.Second
	}
	if c.CleanupInterval == 0 {
		c.CleanupInterval = time.Minute
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
	case "", tsql.Postgres, tsql.MySQL, tsql.SQLite:
	default:
		fault("Dialect is %q; it takes %q, %q or %q, or \"\" to ask the database", c.Dialect, tsql.Postgres, tsql.MySQL, tsql.SQLite)
	}
	if c.Schema != "" && c.Dialect != "" && c.Dialect != tsql.Postgres {
		fault("Schema is %q; only PostgreSQL has schemas, elsewhere Prefix tells tables apart", c.Schema)
	}
	for _, name := range []struct{ field, value string }{{"Prefix", c.Prefix}, {"Schema", c.Schema}} {
		if len(name.value) > maxPrefixBytes {
			fault("%s has %d bytes; it takes at most %d", name.field, len(name.value), maxPrefixBytes)
		}
		if strings.ContainsFunc(name.value, func(r rune) bool { return r < ' ' || r == '?' || r == 0xFFFD }) {
			fault("%s is %q, which has a character that a name can't have", name.field, name.value)
		}
	}
	if c.Retention < 0 {
		fault("Retention is %s; it can't be negative", c.Retention)
	}
	if c.Lease != 0 && c.Lease < minLease {
		fault("Lease is %s; it takes at least %s, or 0 for the default", c.Lease, minLease)
	}
	return errors.Join(faults...)
}

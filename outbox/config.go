package outbox

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gotidings/tidings/bus"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Config configures an [Outbox]. DB and Source are required; the rest has defaults.
type Config struct {
	// DB is the service's database. It stays open when the outbox is closed.
	DB *sql.DB

	// Dialect is the kind of the database. "" asks the database.
	Dialect tsql.Dialect

	// Schema and Prefix say where the tables are, see [tsql.Config]. The business
	// tables may be anywhere else in the same database.
	Schema, Prefix string

	// NoMigrate makes New check the tables instead of making them, for teams that run
	// [tsql.Migrate] or [tsql.MigrationSQL] themselves.
	NoMigrate bool

	// Source is the CloudEvents source of the events, see [bus.Config.Source].
	Source string

	// Codecs write the events' data, see [bus.Config.Codecs]. None means [bus.JSON].
	Codecs []bus.Codec

	// PublishMiddleware wraps Publish, as [bus.Config.PublishMiddleware] wraps that of
	// the bus: the first one outermost. next writes to the transaction.
	PublishMiddleware []bus.PublishMiddleware

	// StructuredMode writes events in the structured mode of CloudEvents, see
	// [bus.Config.StructuredMode].
	StructuredMode bool

	// MaxMessageBytes is the largest payload that Publish takes. Set it to what the
	// destination takes, so that a business transaction fails, and not the relay. 0
	// means [transports.DefaultMaxMessageBytes], or what the database takes when that
	// is less.
	MaxMessageBytes int

	// PollInterval is how often an idle process looks for what other processes have
	// committed. 0 means 250 ms.
	PollInterval time.Duration

	// Notify has the process tell others of what it has committed, with PostgreSQL's
	// NOTIFY, see [tsql.Config.Notify]: relays of other processes need not wait for
	// their next poll when they listen, which pgnotify.Listen(ctx, url, outbox) has
	// them do. After a Publish in a transaction that somebody else commits it tells
	// them up to 200 times a second, for a second.
	Notify bool

	// Retention is how long events are kept, whether or not they have been sent. What
	// a relay has still to send is never deleted. 0 means 7 days; a negative one means
	// for ever.
	Retention time.Duration

	// Logger is told of what an operator should know, never of payloads. nil discards.
	Logger *slog.Logger
}

func (c Config) validate() error {
	var faults []error
	if c.DB == nil {
		faults = append(faults, errors.New("DB is nil"))
	}
	for i, m := range c.PublishMiddleware {
		if m == nil {
			faults = append(faults, fmt.Errorf("PublishMiddleware[%d] is nil", i))
		}
	}
	return errors.Join(faults...)
}

// transport is the configuration of the log.
func (c Config) transport() tsql.Config {
	return tsql.Config{
		Dialect: c.Dialect, Schema: c.Schema, Prefix: c.Prefix, NoMigrate: c.NoMigrate, MaxMessageBytes: c.MaxMessageBytes,
		PollInterval: c.PollInterval, Notify: c.Notify, Retention: c.Retention, Logger: c.Logger,
	}
}

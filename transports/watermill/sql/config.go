package sql

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	wmsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"

	"github.com/gotidings/tidings/transports"
)

// Dialect is the kind of a database.
type Dialect int

// The databases that watermill-sql has adapters for.
const (
	Postgres Dialect = iota + 1
	MySQL            // MariaDB too
)

// Config configures [Open].
type Config struct {
	// DB is the database. Closing the transport leaves it open. Required.
	DB *sql.DB

	// Dialect says what DB is. Required.
	Dialect Dialect

	// Schema is watermill-sql's adapter for the tables of messages. nil means its default
	// of the dialect, whose payload column is JSON: what is not JSON can't be published.
	Schema wmsql.SchemaAdapter

	// Offsets is watermill-sql's adapter for the positions of consumer groups. nil means
	// its default of the dialect.
	Offsets wmsql.OffsetsAdapter

	// FromStart lets a new consumer group begin with the oldest message, as
	// watermill-sql has it, and not with those that are published from now on, as
	// subscriptions do everywhere else. With an Offsets or a Schema that names its tables
	// differently it is always so.
	FromStart bool

	// Group returns the consumer group of a subscription. nil means the subscription's
	// name. Those of different names need different groups.
	Group func(s transports.Subscription) string

	// PollInterval is how often an idle subscription looks for messages. 0 means 1 s.
	PollInterval time.Duration

	// ResendInterval is the time from a Nack to the next delivery. 0 means 1 s.
	ResendInterval time.Duration

	// AckDeadline is how long a message may be in flight before watermill-sql gives it up
	// and delivers it again. 0 means 20 minutes, which is longer than the bus holds an
	// event: watermill-sql's own 30 s would let an event that waits for a retry be handled
	// twice at a time.
	AckDeadline time.Duration

	// MaxMessageBytes and CloseTimeout are those of watermill.Config.
	MaxMessageBytes int
	CloseTimeout    time.Duration

	// Logger gets what watermill-sql logs: errors at their level, everything else at
	// debug. nil discards it.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Offsets != nil {
		c.FromStart = true
	} else {
		c.Offsets = offsets(c.Dialect)
	}
	if c.Schema == nil {
		c.Schema = schema(c.Dialect, "")
	}
	if c.Group == nil {
		c.Group = func(s transports.Subscription) string { return s.Name }
	}
	if c.AckDeadline == 0 {
		c.AckDeadline = 20 * time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	if c.DB == nil {
		faults = append(faults, errors.New("the field DB is nil"))
	}
	if c.Dialect != Postgres && c.Dialect != MySQL {
		faults = append(faults, fmt.Errorf("the field Dialect is %d; it takes Postgres or MySQL", c.Dialect))
	}
	for _, field := range []struct {
		name  string
		value time.Duration
	}{{"PollInterval", c.PollInterval}, {"ResendInterval", c.ResendInterval}, {"AckDeadline", c.AckDeadline}} {
		if field.value < 0 {
			faults = append(faults, fmt.Errorf("the field %s is %s; it can't be negative", field.name, field.value))
		}
	}
	return errors.Join(faults...)
}

// startsNow reports whether new groups are put at the end of a topic: that takes the
// tables to have watermill-sql's default names.
func (c Config) startsNow() bool {
	if c.FromStart {
		return false
	}
	switch s := c.Schema.(type) {
	case wmsql.DefaultPostgreSQLSchema:
		return s.GenerateMessagesTableName == nil
	case wmsql.DefaultMySQLSchema:
		return s.GenerateMessagesTableName == nil
	}
	return false
}

// schema returns watermill-sql's default schema, with another type of payload column
// unless that is empty.
func schema(d Dialect, payload string) wmsql.SchemaAdapter {
	var payloadType func(string) string
	if payload != "" {
		payloadType = func(string) string { return payload }
	}
	if d == Postgres {
		return wmsql.DefaultPostgreSQLSchema{GeneratePayloadType: payloadType}
	}
	return wmsql.DefaultMySQLSchema{GeneratePayloadType: payloadType}
}

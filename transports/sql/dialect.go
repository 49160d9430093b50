package sql

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Dialect is a kind of database.
type Dialect string

// The databases that there is a transport for.
const (
	Postgres Dialect = "postgres" // PostgreSQL 13 or later
	MySQL    Dialect = "mysql"    // MySQL 8 or later, MariaDB 10.6 or later
	SQLite   Dialect = "sqlite"   // SQLite 3.35 or later
)

// dialect is where the databases differ. Everything else is written in the SQL that
// they share, with these marks in it: ? for a parameter; {messages} for a table, see
// tableNames; {now}, {frontier}, {lock}, {skip locked}, see words.
type dialect interface {
	// words are the dialect's own expressions: now is the database's clock in
	// milliseconds since 1970; frontier the id up to which messages may be claimed;
	// lock and skip locked end a SELECT that locks rows; "delete from" and, behind the table,
	// "t by id" begin a statement that touches no rows but those of a list of ids; in topic
	// orders the messages of one topic by their ids, as the planner finds them by an index.
	words() map[string]string

	// rebind writes the parameters of a query as the database wants them.
	rebind(query string) string

	// table quotes the name of a table.
	table(schema, name string) string

	// migrations are the statements of each version of the schema, from 1 on.
	migrations() [][]string

	// migrate calls fn on a connection on which no other process is migrating.
	migrate(ctx context.Context, s *store, fn func(Tx) error) error

	// check looks for a server that the log can't work with, and returns the largest
	// payload that it takes, 0 when it does not say.
	check(ctx context.Context, s *store) (maxBytes int, err error)

	// checkIDs returns an error that wraps ErrUnseen when the next ids are not above all that
	// the log has passed, or when rows are missing without which it stands still.
	checkIDs(ctx context.Context, s *store) error

	// isolation is that of transactions, in which each statement sees what was
	// committed before it.
	isolation() sql.IsolationLevel

	// checkTx returns why a caller's transaction is of a kind that loses messages.
	checkTx(ctx context.Context, tx Tx) error

	// writeFirst lets a transaction read and then write what it has read.
	writeFirst(ctx context.Context, s *store, tx Tx) error

	// byIndex keeps the planner from sorting a table that an index has in order, for the rest
	// of a transaction.
	byIndex(ctx context.Context, s *store, tx Tx) error

	// lockSubscription locks the row of a subscription for the rest of a transaction.
	lockSubscription(ctx context.Context, s *store, tx Tx, id int64) (subscriptionRow, error)

	// lockFrontier keeps the frontier where it is for the rest of a transaction.
	lockFrontier(ctx context.Context, s *store, tx Tx) error

	// topicRange selects the ids of one topic in a range in order, from an alias m of
	// messages. Its parameters are given by topicArgs.
	topicRange() string
	topicArgs(topic string, first, last int64) []any

	// among is what to select from so that m is each message with one of these ids, found by
	// the index whatever is believed of the table, and its parameters.
	among(ids []int64) (from string, args []any)

	// gapless is the condition that a message m is in no gap; "" where there are none,
	// and then nothing is late.
	gapless() string

	// oneStatement reports whether insert writes a parcel with a single statement, so
	// that no transaction is needed.
	oneStatement(s *store, p *parcel) bool

	// insert writes rows to messages.
	insert(ctx context.Context, s *store, q Tx, rows []row) error

	// advance moves the frontier over what was committed. See tail.
	advance(ctx context.Context, s *store, pass bool) (tail, error)
}

// tail is what an advance has found at the end of the log.
type tail struct {
	frontier int64
	busy     bool  // another process was at it, and nothing is known
	more     bool  // there is more to pass than fits into one advance
	missing  int64 // the first id that is missing and was not passed, or 0
}

// subscriptionRow is what a claim needs to know of its subscription.
type subscriptionRow struct {
	version      int64
	position     int64  // all ids up to it have been claimed, or were in a gap
	latePosition int64  // all late ones up to it have been claimed, or are above position
	maxLate      int64  // the last late one that there is
	owner        string // of an ordered or ephemeral one
}

// tableNames are the marks of the tables, without the prefix of the configuration.
var tableNames = []string{
	"messages", "log", "gaps", "late", "subscriptions", "bindings", "claims", "deliveries", "scheduled", "migrations", "maintenance", "gates",
	"event_index", "seals", "replays", // of package eventstore, which makes them
}

// writer returns a function that writes the dialect's queries.
func writer(d dialect, schema, prefix string) func(query string) string {
	var words, tables []string
	for mark, word := range d.words() { // which have tables in them
		words = append(words, "{"+mark+"}", word)
	}
	for _, name := range tableNames {
		tables = append(tables, "{"+name+"}", d.table(schema, prefix+name))
	}
	first, second := strings.NewReplacer(words...), strings.NewReplacer(tables...)
	return func(query string) string { return d.rebind(second.Replace(first.Replace(query))) }
}

// numbered rewrites ? to $1, $2 and so on. No query of ours has a ? in a text.
func numbered(query string) string {
	var b strings.Builder
	n := 0
	for {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n++
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(n))
		query = after
	}
}

// quoted is a name in quotes.
func quoted(name, quote string) string {
	return quote + strings.ReplaceAll(name, quote, quote+quote) + quote
}

// idList writes numbers into a query: they can't be anything else.
func idList(ids []int64) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(id, 10))
	}
	return b.String()
}

func millis(d time.Duration) int64 { return d.Milliseconds() }

// DialectOf asks a database what it is.
func DialectOf(ctx context.Context, db *sql.DB) (Dialect, error) {
	var version string
	err := db.QueryRowContext(ctx, "select version()").Scan(&version)
	switch {
	case err == nil && strings.HasPrefix(version, "PostgreSQL"):
		return Postgres, nil
	case err == nil && version != "" && version[0] >= '0' && version[0] <= '9':
		return MySQL, nil
	case err == nil:
		return "", fmt.Errorf("unknown database: %s", version)
	}
	if db.QueryRowContext(ctx, "select sqlite_version()").Scan(&version) == nil {
		return SQLite, nil
	}
	return "", err
}

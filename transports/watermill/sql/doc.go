// Package sql opens watermill-sql (version 3) on a team's existing tables, as a transport: a
// service moves to this library without touching its tables or its neighbours, which may go
// on with plain Watermill. It is a module of its own, so that only who uses it downloads
// watermill-sql.
//
// Importing it registers the schemes "watermill+postgres" and "watermill+mysql" (MariaDB
// too). They use whichever driver of database/sql the program imports:
//
//	import _ "github.com/jackc/pgx/v5/stdlib"
//
//	transport, err := transports.Open(ctx, "watermill+postgres://user:password@host:5432/db?sslmode=disable")
//
//	payload           type of the payload column of new tables: json (default) or bytes
//	trim_prefix       taken off the names of subscriptions before groups are named by them
//	from              where a new group starts: now (default) or start
//	poll_interval     how often an idle subscription looks for messages; 1s
//	resend_interval   time from a Nack to the next delivery; 1s
//	ack_deadline      most time in flight before a message is delivered again; 20m
//	connect_timeout   most time to open; 10s
//
// All other parameters are the driver's. [Open] takes a *sql.DB, and watermill-sql's adapters
// for tables that are not its default ones.
//
// # Topology
//
// A topic is a table, watermill_topic, with the positions of the consumer groups in
// watermill_offsets_topic; both are made when they are first used. A subscription is a
// consumer group of its name. The bus's name for a subscription begins with its service:
// with trim_prefix=shop. the subscription "mail" of the service "shop" goes on where the
// group "mail" has stopped.
//
// A group that is new starts with what is published from now on, unlike with watermill-sql
// itself, which gives it all that is there. On PostgreSQL that includes what was published
// since the oldest transaction began that is still open.
//
// # Semantics
//
// Publish is one INSERT of all its messages. The subscriber gives the messages of a topic in
// the order of their commits, one at a time, to one replica of a group at a time, and holds
// a transaction open meanwhile; so ordered subscriptions work, and a Concurrency above 1 has
// no effect within a topic. A nacked message comes again after the resend interval, before
// those behind it.
//
// When a subscription ends, what was acknowledged is committed. A crash repeats up to a batch
// (100) of messages that were handled; deduplication takes care of that.
//
// # Limits
//
// This is for the time of moving; transports/sql is the native transport, which can all of
// this and is many times faster. With watermill-sql:
//
//   - There is no delayed redelivery, poison queue or delayed publishing. A failed event
//     waits in place, in an open transaction, with all of its topic behind it. See package
//     transports/watermill for what the bus does instead; give bus.Retry no
//     redeliveries.
//   - On PostgreSQL, any open transaction of the server that has written something, a
//     handler's delivery included, holds up what was published after it began, in every
//     topic.
//   - It does not pass the conformance suite, which takes several messages in flight.
//   - Topics have letters, digits and - $ : . _ only, on PostgreSQL 45 at most; ids of events
//     at most 36 characters; payloads are JSON, or the table's column says otherwise.
//     JSON columns of PostgreSQL keep it as it was, those of MySQL may not.
//   - Metadata is stored as JSON, so invalid UTF-8 in it is replaced.
//   - Rows are never deleted.
package sql

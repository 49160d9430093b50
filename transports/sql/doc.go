// Package sql is a transport on a database that a service has already: PostgreSQL. It
// takes the service's own *sql.DB:
//
//	transport, err := sql.New(ctx, db, sql.Config{})
//
// or opens one by URL, with whichever driver the program imports:
//
//	transport, err := transports.Open(ctx, "postgres://user@host:5432/shop?sslmode=disable")
//
// Parameters of a URL besides the driver's: schema, prefix, migrate (true), lease (30s),
// poll_interval (250ms), retention (168h), max_message_bytes, pool_size (10).
//
// # Semantics
//
// Publish returns when the message is committed. [Transport.PublishTx] writes in the
// caller's transaction: the message is delivered if and only if that commits. A batch is
// one statement.
//
// A message is one row, whatever the number of subscriptions, and is never updated.
// Consumers claim ranges of the log, handle them without a transaction, and note what
// they have settled. Each message is delivered at least once to each subscription, and
// once as long as nothing crashes and no lease ends. What a lost process held goes to
// others when its lease ends, by the database's clock; what it had settled, up to 50 ms
// before, is not repeated. A consumer that ends gives back at once what it has not
// handled.
//
// Consumers of one subscription share it. One takes as much ahead as its receiver has
// just been able to handle in 100 ms, and gives it back when the receiver turns slow. A
// nacked message comes back at once to the same consumer, at its place. A requeued
// message is a copy for one subscription, delivered when it is due.
//
// Order is that of the ids of the log, which publishers get as they write; an event that
// is committed while later ones have been passed comes late, and no other waits for it.
// Of two events of which one was published after the other was committed, it is always
// the earlier one that comes first to an ordered subscription, or to a single consumer of
// the concurrency 1. An ordered subscription has one active consumer; the others take
// over when its lease ends, or at once when it stops.
//
// A new subscription begins now: with what is committed after [Transport.Subscribe] was
// called. [Transport.DeclareSubscription] makes one that begins with the oldest message
// there is.
//
// # Topology
//
// Ten tables, with a prefix and in a schema of the configuration:
//
//	messages       the log: id, topic, event id, source, partition key, metadata (JSON), payload, time
//	log            one row, the frontier: ids up to it are committed, in gaps, or dead
//	gaps           ids that the frontier has passed while they were missing
//	late           ids that have come into a gap, numbered
//	subscriptions  one row each, with its positions in ids and in late
//	bindings       their topic patterns
//	claims         ranges that are being handled: what of them is settled, by whom, until when
//	deliveries     exceptions: messages of one subscription to retry, or poisoned
//	scheduled      delayed messages that are not due yet
//	migrations     the version of the tables
//
// [New] makes them, and may be called by several processes at once; [Migrate] and
// [MigrationSQL] are for teams that keep schema changes apart. Then New needs the rights
// to SELECT, INSERT, UPDATE and DELETE only.
//
// One poller in a process looks for what is new, every 10 ms while there is something
// and every Config.PollInterval when there is not, and at once when the process itself
// has published. Messages are deleted when they are older than Config.Retention and no
// subscription needs them.
//
// # Connections
//
// A transport holds no connection between its statements. At most one is used by the
// poller, one for writing what is settled, one by each consumer that is fetching, and one
// by each Publish that is under way. With fewer they wait for each other, and a pool of
// one is enough. Transactions of the transport last for a few milliseconds, and none is
// open while a handler runs.
//
// # Limits
//
// Topics and subscription names have at most 1,000 bytes, payloads [Config.MaxMessageBytes].
// Message ids are valid UTF-8 without NUL. Nothing holds publishers back but the disk:
// a subscription that lags is warned of, see [Config.LagWarning] and [Config.ExpireAfter].
// A subscription with wildcards looks at every message once; one with exact topics only
// at its own.
package sql

// Package sql is a transport on a database that a service has already: PostgreSQL, MySQL
// or MariaDB, or a file of SQLite. It takes the service's own *sql.DB:
//
//	transport, err := sql.New(ctx, db, sql.Config{})
//
// or opens one by URL, with whichever driver the program imports:
//
//	transport, err := transports.Open(ctx, "postgres://user@host:5432/shop?sslmode=disable")
//	transport, err := transports.Open(ctx, "mysql://user:password@host:3306/shop")
//	transport, err := transports.Open(ctx, "sqlite:shop.db")
//
// Parameters of a URL besides the driver's own: schema, prefix, migrate (true), lease
// (30s), poll_interval (250ms), retention (168h), notify (false), max_message_bytes,
// pool_size (10). The driver of PostgreSQL can be pgx or lib/pq, that of SQLite
// modernc.org/sqlite or mattn/go-sqlite3; the tests use the first of each.
//
// # Semantics
//
// Publish returns when the message is committed. [Transport.PublishTx] writes in the
// caller's transaction: the message is delivered if and only if that commits. A batch is
// one statement on PostgreSQL, and one transaction elsewhere.
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
// nacked message comes back at once to the same consumer, at its place, and from the tenth
// nack on a second later; meanwhile others are delivered, and an ordered subscription waits.
// A requeued message is a copy for one subscription, delivered when it is due.
//
// Order is that of the ids of the log, which publishers get as they write. An event that
// is committed when later ones have been passed comes late; it holds up no other, and an
// open transaction holds up its own events only. Of two events of which one was published
// after the other was committed, it is the earlier one that comes first to an ordered
// subscription, or to a single consumer of the concurrency 1. An ordered subscription has
// one active consumer; the others take over when its lease ends, or within a second when
// it stops.
//
// A new subscription begins now: with what is committed after [Transport.Subscribe] was
// called. [Transport.DeclareSubscription] makes one that begins with the oldest message
// there is. An ephemeral subscription keeps its place in the process.
//
// # Topology
//
// Tables, with a prefix, and on PostgreSQL in a schema, of the configuration:
//
//	messages       the log: id, topic, event id, source, partition key, metadata (JSON), payload, time
//	log            one row, the frontier: ids up to it are committed, in gaps, or dead
//	gaps           ids that the frontier has passed while they were missing
//	late           ids that have come into a gap, numbered
//	gates          what publishers hold while they are open; MySQL only
//	subscriptions  one row each, with its positions in ids and in late
//	bindings       their topic patterns
//	claims         ranges that are being handled: what of them is settled, by whom, until when
//	deliveries     exceptions: messages of one subscription to retry, or poisoned
//	scheduled      delayed messages that are not due yet
//	maintenance    one row: the process that is deleting what is old, and until when
//	migrations     the version of the tables
//
// [New] makes them, and may be called by several processes at once; [Migrate] and
// [MigrationSQL] are for teams that keep schema changes apart. Then New needs the rights
// to SELECT, INSERT, UPDATE and DELETE only, and on PostgreSQL to USAGE of the schema and
// to SELECT on the sequence of messages. Only this package may write to messages.
//
// One poller in a process looks for what is new: every 10 ms while there is something,
// every Config.PollInterval when there is not, and at once when the process itself has
// published. On PostgreSQL, package pgnotify has it hear of other processes at once.
// Messages are deleted when they are older than Config.Retention and no subscription
// needs them. One process at a time does that, once a minute, in small batches and beside the
// poller, so that no delivery waits for it.
//
// # Connections
//
// A transport holds no connection between its statements. At most one is used by the
// poller, one for deleting what is old, one for writing what is settled, one by each consumer that is fetching, one for
// notifying, and one by each Publish that is under way. With fewer they wait for each
// other, and a pool of one is enough. Transactions of the transport last for a few
// milliseconds, and none is open while a handler runs.
//
// # Settings
//
// New refuses a session in which a promise can't be kept, such as autocommit=0, a sql_mode
// that is not strict, a character set other than utf8mb4, and synchronous_commit=off. It warns
// where the server itself is set to lose commits in a crash, such as fsync=off. The ids of
// messages have to go up. That they do is checked by New, and then every second: see
// [ErrUnseen].
//
// # SQLite
//
// Several processes can share a file; one writes at a time, for as long as its transaction
// is open. Open uses WAL mode, waits up to 10 s for other writers, and locks at the
// beginning of transactions. A *sql.DB of your own needs the same: for modernc.org/sqlite
//
//	file:shop.db?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate
//
// While a transaction of PublishTx is open, nothing else can be published or claimed.
//
// # MySQL and MariaDB
//
// Galera, an auto_increment_increment other than 1, and statement-based replication are
// refused by New, and [Transport.PublishTx] refuses a branch of a distributed transaction
// (XA), with one question to the server unless tx was begun by go-sql-driver/mysql. Each publish is a transaction, which holds a shared lock on a row of
// gates until it ends. Payloads are limited by max_allowed_packet, less 1 MiB, and a message
// with its metadata by half a MiB more; a packet has to have 2 MiB at least.
//
// The driver prepares, executes and closes each statement, which is two round trips, unless its
// parameter interpolateParams is true. Then it has to know the size of the server's packets. Open
// sets both; set them in the DSN of a *sql.DB of your own:
//
//	user:password@tcp(host:3306)/shop?interpolateParams=true&maxAllowedPacket=0
//
// # Limits
//
// Topics and subscription names have at most 1,000 bytes, payloads [Config.MaxMessageBytes].
// Message ids are valid UTF-8 without NUL. Nothing holds publishers back but the disk:
// a subscription that lags is warned of, see [Config.LagWarning] and [Config.ExpireAfter].
// A subscription with wildcards looks at every message once; one with exact topics only
// at its own. A publish that loses its connection as it commits is tried again, so that a
// message can be there twice, under one id. On PostgreSQL, a rolled-back publish is a row
// in gaps until every transaction of the cluster that was open then has ended.
package sql

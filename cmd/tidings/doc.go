// Tidings is the operator's program: it shows what the subscriptions of services hold, what
// could not be handled and why, and puts it back once that is mended.
//
//	tidings poison list                              # what failed, by subscription and fault
//	tidings poison show ID                           # one event, with its failure and its data
//	tidings poison retry -s shop.mail --fingerprint 38380c54
//	tidings stats                                    # what waits, is in flight, is poisoned
//	tidings tail 'order.*'                           # events as they are published
//
// It works on the transports of this library that outlive a process: RabbitMQ, and the log
// in PostgreSQL, MySQL, MariaDB or SQLite. Their URL is that of the services, by --transport
// or, better, since other users of the machine see command lines, by TIDINGS_TRANSPORT.
//
// # Commands
//
//	publish         an event, or a file of events
//	tail            events as they are published, by pattern
//	poison          list, show, retry, discard: events that could not be handled
//	outbox          status, retry: events on their way out of a database
//	events          list, show, tree, replay: events that are stored in a database
//	subscriptions   list, remove
//	topology        what exists, and what the start of a service would change
//	stats           what waits in subscriptions
//	health          whether the broker can be used
//	migrate         makes the tables, or on RabbitMQ the exchanges
//	completion      of the shell: bash, zsh, fish, powershell
//
// Each has a --help.
//
// # What it prints
//
// Tables for people, or with -o json one document for programs, [] when there is nothing
// (tail is a stream: a document a line). Errors are one line on standard error that says
// what to do. The exit status is 0 when all that was asked is done; 1 for a fault, when it
// is not finished, or when nothing is there of what was named; 2 for a usage error. Passwords are
// never printed; poison show and tail print the data of events. Only migrate, publish, the
// commands named retry, discard and remove, and nothing else, change anything at the
// broker: tables, files and exchanges that are not there are not made. tail has a queue of
// its own for as long as it runs.
//
// --timeout bounds each call of the broker, 10 s by default.
//
// # Putting events back
//
// poison retry moves one event, waits until it is handled, then moves ten, then the rest. It
// stops when one of them comes back, and says whether that is the same fault. An event is
// stored in the queue before it leaves the poison queue, so that a kill at any moment loses
// nothing. It may leave an event in both for a moment, or until the next run, so that it is
// delivered twice: deduplication or an inbox handles it once.
//
// How the outcome is known depends on the transport. On SQL, each event is followed until it
// is handled or poisoned. RabbitMQ tells neither what is in flight nor what waits for a
// redelivery; there a step counts as handled when the subscription's queue is empty and
// nothing has come back for the time of --settle. An event whose retries take longer comes
// back after that, and is found by the next poison list.
//
// # RabbitMQ
//
// AMQP can't list queues. With --management-url, or TIDINGS_MANAGEMENT_URL, subscriptions
// are found by the management plugin; without, they are named by --subscription. The user
// needs the right to configure, write and read the queues of the subscriptions, since
// commands lock a poison queue by a queue of their own, <subscription>:lock; and for tail,
// those that begin with tidings-tail. While a poison queue is looked through, its messages
// are out of the sight of others, who wait.
//
// Commands work on the exchange of the URL, ?exchange=, and on the subscriptions to it. With
// another exchange than "events", the names of its queues begin with the exchange and a
// slash, but commands take and print the names of subscriptions.
//
// # Building
//
// The program is a module of its own, so that services don't depend on its drivers. In a
// checkout, go run ./cmd/tidings and go build -o tidings ./cmd/tidings. Its go.mod has a
// replace directive for the library beside it, which go install …@version refuses; a
// release is tagged cmd/tidings/vX.Y.Z on a commit where that is a requirement of the
// library's version instead.
package main

const rootHelp = `Operate the events of services on Tidings: RabbitMQ, PostgreSQL, MySQL, MariaDB, SQLite.

The broker is that of the services, by --transport URL or TIDINGS_TRANSPORT:
  amqp://user:password@host/vhost    postgres://user:password@host/database
  mysql://user:password@host/db      sqlite:file.db

The exit status is 0 when all is done; 1 for a fault, when it is not finished, or when
nothing is there of what was named; and 2 for a usage error.`

const rootExample = `  export TIDINGS_TRANSPORT=postgres://user:password@db/shop
  tidings poison list
  tidings poison retry -s shop.send-welcome-email --fingerprint 38380c54`

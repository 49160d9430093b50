package matrix

import "github.com/gotidings/tidings/internal/testserver"

// suite is what a leg runs.
type suite struct {
	name    string   // a package, or an example
	tests   string   // pattern; "" for all
	without string   // pattern of those that are left out
	why     string   // some are left out
	args    []string // more of them, for the program
	release string   // the only one that it runs on; "" for all
	private bool     // starts servers of its own; needs none
}

const quickstart = "examples/quickstart"

// On one node everything runs that asks for a server at all.
var onNode = []suite{
	{name: "transports/rabbitmq"},
	{name: "transports/watermill/amqp"},
	{name: "internal/interop", tests: "RabbitMQ|PubSub"},
	{name: quickstart},
	{name: "internal/testserver", tests: "^Test(Broker|Node)", private: true},
	{
		name: "internal/faults", tests: "^Test(ServiceKilled|KillerIsPoisoned|BrokerKilled|DelayTierWithoutALeader)$", private: true,
		why: "the others repeat harm at random for minutes",
	},
}

// On a cluster the suites run that depend on where queues are.
var onCluster = []suite{
	{
		name: "transports/rabbitmq", without: "OfSubscribeNotified$",
		why: "how a receiver is notified does not depend on the broker",
	},
	{
		name: "transports/watermill/amqp", tests: "^TestConformance$",
		why: "the others test URLs, headers and configuration",
	},
	{name: quickstart},
	{name: "internal/testserver", tests: "^TestCluster", private: true},
	{name: "internal/faults", tests: "^TestOneNodeOfThreeIsDown$", private: true},
	{
		name: "internal/faults", tests: "^TestCluster$", private: true, release: "4.3",
		why: "it takes minutes",
	},
}

// On a database everything runs that asks for one of its kind.
var onDatabase = map[testserver.Server][]suite{
	testserver.PostgresServer: onSQL("MySQL|SQLite|/^(mysql|sqlite)$", "^TestLoadOnServers$"),
	testserver.MariaDBServer:  onSQL("Postgres|PgBouncer|Pgx|Gorm|SQLite|/^(postgres|sqlite)$", "^TestLoadOnMySQL$"),
	testserver.MySQLServer:    onSQL("Postgres|PgBouncer|Pgx|Gorm|SQLite|/^(postgres|sqlite)$", "^TestLoadOnMySQL$"),
}

func onSQL(others, shop string) []suite {
	const why = "those of other databases"
	return []suite{
		{name: "transports/sql/sqltest", without: others, why: why, args: []string{"-adversary=60s"}},
		{name: "outbox/outboxtest", without: others, why: why},
		{name: "eventstore/eventstoretest", without: others, why: why},
		{name: quickstart},
		{name: "examples/shop", tests: shop, why: "the others do not depend on the database"},
	}
}

// Package testserver finds servers for tests, and starts private ones for tests that
// cut, stop or kill.
//
// [RabbitMQ], [Postgres] and [MySQL] return the URL of a server that answers: the one
// that the environment names (RABBITMQ_URL, POSTGRES_URL, MYSQL_URL), else one on this
// machine at its default port. Such a server belongs to somebody: tests work in a
// vhost, schema or prefix of their own, leave it clean, and never stop it.
//
// [StartRabbitMQ] starts a broker of the test's own, and [StartRabbitMQCluster] several that
// form a cluster. They are of the release that the environment variable TIDINGS_RABBITMQ
// names ("4.3"), or of the one that the test asks for. Releases other than the installed one
// are in folders with another release of Debian, in TIDINGS_ROOTS
// (/var/cache/tidings/roots), where scripts/roots.sh installs them. [Versions] lists what is
// supported.
//
// Where there is no server, the test is skipped with the commands that provide one, or
// fails under REQUIRE_SERVICES=1, which CI sets.
package testserver

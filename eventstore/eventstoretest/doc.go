// Package eventstoretest tests package eventstore on every kind of store: in memory,
// PostgreSQL, MariaDB and SQLite. It is a module of its own because of the drivers.
package eventstoretest

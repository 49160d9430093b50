// Package matrix runs the tests that talk to a server on every version of it that
// internal/testserver lists as run: one node, and a cluster of three. `make matrix` starts
// it.
//
// Each leg is a suite on a version: a test binary, which is built once and run for every
// version, or the quickstart. A leg prints one line, and its whole output if it fails.
//
// The servers are private ones. On a machine that can't start them, TIDINGS_MATRIX names
// running servers, separated by spaces, and the nodes of a cluster by commas:
//
//	TIDINGS_MATRIX="rabbitmq-4.3=amqp://… rabbitmq-4.3-cluster=amqp://…,amqp://…,amqp://…"
//
// Those are used as they are, by suites that stop no server. A leg without a server is
// reported as not run, and fails under REQUIRE_SERVICES=1.
package matrix

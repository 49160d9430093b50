// Package sqltest has the tests of transports/sql that need a driver or a server.
package sqltest

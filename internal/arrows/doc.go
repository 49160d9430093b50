// Package arrows checks which package imports which.
//
// The layout of the library is a promise to its users: a program that runs on the
// memory transport links no AMQP, SQL or OpenTelemetry SDK code, and a service that
// shares its events shares nothing else. The rules are tables in arrows_test.go.
// depguard, in .golangci.yml, checks the direct imports too and marks the line in an
// editor; this package needs nothing but Go, and follows indirect imports.
//
// The rules are about what ships. Test files are depguard's, since go list sees their
// imports apart, and packages that don't exist yet are passed over.
package arrows

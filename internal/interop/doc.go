// Package interop checks the library against other implementations of what it speaks:
// its JSON event format against the CloudEvents SDK for Go, its transports, as Watermill
// subscribers, against the suite of tests that Watermill has for its own, and a circuit
// breaker that it shares with an HTTP client of failsafe-go.
//
// It is a module of its own, so that the library does not depend on what it is compared
// with. There is nothing in it but tests.
package interop

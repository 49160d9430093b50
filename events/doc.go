// Package events says what an event is and defines the events of the domain.
//
// An event is a plain struct with a stable wire name:
//
//	type CustomerCreated struct {
//		CustomerID int64  `json:"customerId"`
//		Email      string `json:"email"`
//	}
//
//	func (CustomerCreated) EventType() string { return "customer.created" }
//
// What surrounds an event on its way, its id, source, time and correlation, is
// its [Metadata]: the context attributes of CloudEvents 1.0. A handler reads it
// with [MetadataFrom].
//
// An event that implements [Validator] is checked when it is published and
// again when it is received; a fault is a [*ValidationError] that names the
// field.
//
// [AppendJSON] and [ParseJSON] write and read an event whole, attributes and data, in
// the JSON event format of CloudEvents: for files, HTTP bodies and other services.
//
// The package imports the standard library and google/uuid only, so that a
// service can share its events with others without sharing anything else.
package events

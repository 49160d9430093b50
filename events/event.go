package events

// Event is a domain event: something that has happened.
//
// EventType returns the event's wire name, such as "customer.created": words of
// letters, digits, hyphens and underscores joined by dots. It is the same for every value of the
// type, never a Go type name, and is declared on the value receiver, since it
// is also asked of the zero value.
type Event interface {
	EventType() string
}

// Keyed is an event that belongs to a partition: events with one key are
// handled in publish order by ordered subscriptions. An empty key means none.
type Keyed interface {
	PartitionKey() string
}

// Validator is an event that knows its own rules. Publish refuses an event
// whose Validate returns an error, and a received one goes to the poison queue.
// Faults are reported as [*ValidationError], several of them joined.
type Validator interface {
	Validate() error
}

// ValidationError says which field of an event is wrong.
type ValidationError struct {
	Field   string // the field's wire name, such as "email" or "items[2].quantity"
	Problem string // what is wrong with it, such as "is empty"
}

func (e *ValidationError) Error() string { return e.Field + " " + e.Problem }

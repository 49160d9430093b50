package events

import (
	"strconv"
	"strings"
	"time"
)

// CustomerType is the standing of a customer. The empty type means regular, so
// compare with [CustomerTypeVIP].
type CustomerType string

// The types of customers.
const (
	CustomerTypeRegular CustomerType = "regular"
	CustomerTypeVIP     CustomerType = "vip"
)

// CustomerCreated says that a customer has registered.
type CustomerCreated struct {
	CustomerID   int64        `json:"customerId"`     // positive
	CustomerName string       `json:"customerName"`   // may be empty: not every shop asks for it
	Email        string       `json:"email"`          // text on both sides of one @, checked no further
	Type         CustomerType `json:"type,omitempty"` // empty, on the wire absent, means regular
}

// CustomerPromotedToVIP says that a customer has become a VIP. It has no e-mail
// address: who needs it looks it up by CustomerID.
type CustomerPromotedToVIP struct {
	CustomerID   int64     `json:"customerId"`   // positive
	CustomerName string    `json:"customerName"` // may be empty
	PromotedAt   time.Time `json:"promotedAt"`   // not the zero time
}

var (
	_ Event     = CustomerCreated{}
	_ Keyed     = CustomerCreated{}
	_ Validator = CustomerCreated{}
	_ Event     = CustomerPromotedToVIP{}
	_ Keyed     = CustomerPromotedToVIP{}
	_ Validator = CustomerPromotedToVIP{}
)

// EventType returns "customer.created".
func (CustomerCreated) EventType() string { return "customer.created" }

// EventType returns "customer.promoted_to_vip".
func (CustomerPromotedToVIP) EventType() string { return "customer.promoted_to_vip" }

// PartitionKey returns the customer's key, "customer-42": all events of one
// customer have the same.
func (e CustomerCreated) PartitionKey() string { return customerKey(e.CustomerID) }

// PartitionKey returns the customer's key, "customer-42": all events of one
// customer have the same.
func (e CustomerPromotedToVIP) PartitionKey() string { return customerKey(e.CustomerID) }

// customerKey begins with the kind, as the keys of orders and documents do:
// customer 42 and order 42 have nothing to wait for from each other.
func customerKey(id int64) string { return "customer-" + strconv.FormatInt(id, 10) }

// Validate reports every field that breaks its rule as a [*ValidationError].
func (e CustomerCreated) Validate() error {
	var f faults
	f.check("customerId", notPositive(e.CustomerID))
	if local, domain, ok := strings.Cut(e.Email, "@"); !ok || local == "" || domain == "" || strings.Contains(domain, "@") {
		f.check("email", "is not text on both sides of one @")
	}
	switch e.Type {
	case "", CustomerTypeRegular, CustomerTypeVIP:
	default:
		f.check("type", "is neither regular nor vip")
	}
	return f.err()
}

// Validate reports every field that breaks its rule as a [*ValidationError].
func (e CustomerPromotedToVIP) Validate() error {
	var f faults
	f.check("customerId", notPositive(e.CustomerID))
	if e.PromotedAt.IsZero() {
		f.check("promotedAt", "is missing")
	}
	return f.err()
}

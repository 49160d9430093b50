package events_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gotidings/tidings/events"
)

func TestCustomerCreatedValidate(t *testing.T) {
	t.Parallel()
	const badEmail = "email is not text on both sides of one @"
	tests := []struct {
		name   string
		change func(*events.CustomerCreated)
		want   []string
	}{
		{"good", func(*events.CustomerCreated) {}, nil},
		{"id 0", func(e *events.CustomerCreated) { e.CustomerID = 0 }, []string{"customerId is not positive"}},
		{"id negative", func(e *events.CustomerCreated) { e.CustomerID = -1 }, []string{"customerId is not positive"}},
		{"no name", func(e *events.CustomerCreated) { e.CustomerName = "" }, nil},
		{"no type", func(e *events.CustomerCreated) { e.Type = "" }, nil},
		{"regular", func(e *events.CustomerCreated) { e.Type = "regular" }, nil},
		{"vip", func(e *events.CustomerCreated) { e.Type = "vip" }, nil},
		{"VIP", func(e *events.CustomerCreated) { e.Type = "VIP" }, []string{"type is neither regular nor vip"}},
		{"e-mail empty", func(e *events.CustomerCreated) { e.Email = "" }, []string{badEmail}},
		{"e-mail without @", func(e *events.CustomerCreated) { e.Email = "ada.example.com" }, []string{badEmail}},
		{"e-mail of @ only", func(e *events.CustomerCreated) { e.Email = "@" }, []string{badEmail}},
		{"e-mail, nothing before", func(e *events.CustomerCreated) { e.Email = "@example.com" }, []string{badEmail}},
		{"e-mail, nothing after", func(e *events.CustomerCreated) { e.Email = "ada@" }, []string{badEmail}},
		{"e-mail, two @ apart", func(e *events.CustomerCreated) { e.Email = "ada@b@example.com" }, []string{badEmail}},
		{"e-mail, two @ together", func(e *events.CustomerCreated) { e.Email = "ada@@example.com" }, []string{badEmail}},
		{"e-mail, @ at the end too", func(e *events.CustomerCreated) { e.Email = "ada@example.com@" }, []string{badEmail}},
		{"e-mail, nothing else is checked", func(e *events.CustomerCreated) { e.Email = "Ädä +@ localhost" }, nil},
		{"all wrong", func(e *events.CustomerCreated) { *e = events.CustomerCreated{Type: "gold"} }, []string{
			"customerId is not positive", badEmail, "type is neither regular nor vip",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := events.CustomerCreated{CustomerID: 42, CustomerName: "Ada", Email: "ada@example.com", Type: events.CustomerTypeVIP}
			tt.change(&e)
			checkFaults(t, e.Validate(), tt.want...)
		})
	}
}

// Problems are logged and kept with poisoned messages: they must not carry the
// customer's address there.
func TestCustomerCreatedFaultKeepsTheAddressOut(t *testing.T) {
	t.Parallel()
	err := events.CustomerCreated{CustomerID: 42, Email: "ada.lovelace"}.Validate()
	if err == nil || strings.Contains(err.Error(), "lovelace") {
		t.Errorf("Validate() = %v, want an error without the address", err)
	}
}

func TestCustomerPromotedToVIPValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		event events.CustomerPromotedToVIP
		want  []string
	}{
		{"good", events.CustomerPromotedToVIP{CustomerID: 1, CustomerName: "Ada", PromotedAt: time.Unix(1, 0)}, nil},
		{"no name", events.CustomerPromotedToVIP{CustomerID: 1, PromotedAt: time.Unix(1, 0)}, nil},
		{"no id", events.CustomerPromotedToVIP{PromotedAt: time.Unix(1, 0)}, []string{"customerId is not positive"}},
		{"no time", events.CustomerPromotedToVIP{CustomerID: 1}, []string{"promotedAt is missing"}},
		{"nothing", events.CustomerPromotedToVIP{}, []string{"customerId is not positive", "promotedAt is missing"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			checkFaults(t, tt.event.Validate(), tt.want...)
		})
	}
}

// RFC 3339 keeps the offset from UTC, and so does the event.
func TestCustomerPromotedToVIPKeepsTheOffset(t *testing.T) {
	t.Parallel()
	const text = `{"customerId":1,"customerName":"","promotedAt":"2026-02-03T04:05:06+05:30"}`
	e := decode(t, events.CustomerPromotedToVIP{}, text).(events.CustomerPromotedToVIP)
	if got := e.PromotedAt.Format(time.RFC3339); got != "2026-02-03T04:05:06+05:30" {
		t.Errorf("promotedAt = %s", got)
	}
}

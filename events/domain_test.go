package events_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/events"
)

// The events of the domain with every field set, and what they are on the wire.
// The texts are a contract with services written in other languages.
var wireShapes = []struct {
	event events.Event
	name  string
	key   string
	text  string
}{
	{
		event: events.CustomerCreated{CustomerID: 42, CustomerName: "Ada Lovelace", Email: "ada@example.com", Type: events.CustomerTypeVIP},
		name:  "customer.created",
		key:   "customer-42",
		text:  `{"customerId":42,"customerName":"Ada Lovelace","email":"ada@example.com","type":"vip"}`,
	},
	{
		event: events.CustomerCreated{CustomerID: 42, Email: "ada@example.com"},
		name:  "customer.created",
		key:   "customer-42",
		text:  `{"customerId":42,"customerName":"","email":"ada@example.com"}`,
	},
	{
		event: events.CustomerPromotedToVIP{CustomerID: 42, CustomerName: "Ada", PromotedAt: time.Date(2026, 2, 3, 4, 5, 6, 700_000_000, time.UTC)},
		name:  "customer.promoted_to_vip",
		key:   "customer-42",
		text:  `{"customerId":42,"customerName":"Ada","promotedAt":"2026-02-03T04:05:06.7Z"}`,
	},
	{
		event: events.OrderCreated{
			OrderID: 7, CustomerID: 42, TotalAmount: events.MustMoney("64.70"),
			Items: []events.OrderItem{
				{ProductID: 1, Quantity: 3, UnitPrice: events.MustMoney("19.90")},
				{ProductID: 2, Quantity: 1},
			},
		},
		name: "order.created",
		key:  "order-7",
		text: `{"orderId":7,"customerId":42,"totalAmount":"64.7","items":[` +
			`{"productId":1,"quantity":3,"unitPrice":"19.9"},{"productId":2,"quantity":1,"unitPrice":"0"}]}`,
	},
	{
		event: events.DocumentProcessed{
			DocumentID: "d-1", UserID: "u-2", ProcessingDurationMs: 1500,
			ProcessingResults: json.RawMessage(`{"pages":3,"account":9007199254740993,"score":0.10}`),
		},
		name: "document.processed",
		key:  "document-d-1",
		text: `{"documentId":"d-1","userId":"u-2","processingResults":{"pages":3,"account":9007199254740993,"score":0.10},"processingDurationMs":1500}`,
	},
	{
		event: events.DocumentFailed{DocumentID: "d-1", Error: "unreadable", StackTrace: "main.go:1"},
		name:  "document.failed",
		key:   "document-d-1",
		text:  `{"documentId":"d-1","error":"unreadable","stackTrace":"main.go:1"}`,
	},
	{
		event: events.DocumentFailed{DocumentID: "d-1", Error: "unreadable"},
		name:  "document.failed",
		key:   "document-d-1",
		text:  `{"documentId":"d-1","error":"unreadable"}`,
	},
}

func TestDomainOnTheWire(t *testing.T) {
	t.Parallel()
	for _, tt := range wireShapes {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			if got := tt.event.EventType(); got != tt.name {
				t.Errorf("EventType() = %q, want %q", got, tt.name)
			}
			if got := reflect.Zero(reflect.TypeOf(tt.event)).Interface().(events.Event).EventType(); got != tt.name {
				t.Errorf("EventType() of the zero value = %q, want %q", got, tt.name)
			}
			if got := tt.event.(events.Keyed).PartitionKey(); got != tt.key {
				t.Errorf("PartitionKey() = %q, want %q", got, tt.key)
			}
			if err := tt.event.(events.Validator).Validate(); err != nil {
				t.Errorf("Validate() = %v", err)
			}
			text, err := json.Marshal(tt.event)
			if err != nil {
				t.Fatal(err)
			}
			if string(text) != tt.text {
				t.Errorf("on the wire:\n got %s\nwant %s", text, tt.text)
			}
			if diff := cmp.Diff(tt.event, decode(t, tt.event, tt.text)); diff != "" {
				t.Errorf("read back (-sent +received):\n%s", diff)
			}
			// A newer publisher may send more than this version knows.
			newer := `{"addedLater":{"a":[1]},` + tt.text[1:]
			if diff := cmp.Diff(tt.event, decode(t, tt.event, newer)); diff != "" {
				t.Errorf("with an unknown field (-sent +received):\n%s", diff)
			}
		})
	}
}

// decode reads text as an event of the type of sample.
func decode(t *testing.T, sample events.Event, text string) events.Event {
	t.Helper()
	p := reflect.New(reflect.TypeOf(sample))
	if err := json.Unmarshal([]byte(text), p.Interface()); err != nil {
		t.Fatal(err)
	}
	return p.Elem().Interface().(events.Event)
}

// checkFaults compares the fields that Validate complains of, each with its
// problem, with want. "Several joined" is part of the contract, so it unwraps.
func checkFaults(t *testing.T, err error, want ...string) {
	t.Helper()
	var got []string
	if err != nil {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			t.Fatalf("error is a %T, want joined errors: %v", err, err)
		}
		for _, fault := range joined.Unwrap() {
			invalid, ok := errors.AsType[*events.ValidationError](fault)
			if !ok {
				t.Fatalf("fault is a %T, want a *ValidationError: %v", fault, fault)
			}
			got = append(got, invalid.Field+" "+invalid.Problem)
		}
		if text := strings.Join(got, "\n"); err.Error() != text {
			t.Errorf("Error() = %q, want %q", err.Error(), text)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

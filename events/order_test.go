package events_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/gotidings/tidings/events"
)

func TestOrderCreatedValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*events.OrderCreated)
		want   []string
	}{
		{"good", func(*events.OrderCreated) {}, nil},
		{"no order id", func(e *events.OrderCreated) { e.OrderID = 0 }, []string{"orderId is not positive"}},
		{"no customer id", func(e *events.OrderCreated) { e.CustomerID = -3 }, []string{"customerId is not positive"}},
		{"free", func(e *events.OrderCreated) { e.TotalAmount = events.Money{} }, nil},
		{"total is not the sum", func(e *events.OrderCreated) { e.TotalAmount = events.MustMoney("1") }, nil},
		{"total negative", func(e *events.OrderCreated) { e.TotalAmount = events.MustMoney("-0.01") }, []string{"totalAmount is negative"}},
		{"total too large to be written", func(e *events.OrderCreated) {
			e.TotalAmount = events.MustMoney("99999999999999999999").Mul(2)
		}, []string{"totalAmount has more than 20 digits before the point"}},
		{"items nil", func(e *events.OrderCreated) { e.Items = nil }, []string{"items is empty"}},
		{"items empty", func(e *events.OrderCreated) { e.Items = []events.OrderItem{} }, []string{"items is empty"}},
		{"product on two lines", func(e *events.OrderCreated) { e.Items[1].ProductID = e.Items[0].ProductID }, nil},
		{"no product", func(e *events.OrderCreated) { e.Items[0].ProductID = 0 }, []string{"items[0].productId is not positive"}},
		{"no quantity", func(e *events.OrderCreated) { e.Items[2].Quantity = 0 }, []string{"items[2].quantity is not positive"}},
		{"gift", func(e *events.OrderCreated) { e.Items[1].UnitPrice = events.Money{} }, nil},
		{"price negative", func(e *events.OrderCreated) { e.Items[1].UnitPrice = events.MustMoney("-1") }, []string{"items[1].unitPrice is negative"}},
		{"price too fine to be written", func(e *events.OrderCreated) {
			e.Items[0].UnitPrice = events.NewMoney(1, 19)
		}, []string{"items[0].unitPrice has more than 18 digits after the point"}},
		{"several", func(e *events.OrderCreated) {
			e.OrderID = 0
			e.Items[0].Quantity = -1
			e.Items[2] = events.OrderItem{}
		}, []string{
			"orderId is not positive",
			"items[0].quantity is not positive",
			"items[2].productId is not positive",
			"items[2].quantity is not positive",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := events.OrderCreated{OrderID: 7, CustomerID: 42, TotalAmount: events.MustMoney("5.50")}
			for i := range 3 {
				e.Items = append(e.Items, events.OrderItem{ProductID: int64(i + 1), Quantity: 1, UnitPrice: events.MustMoney("2")})
			}
			tt.change(&e)
			checkFaults(t, e.Validate(), tt.want...)
		})
	}
}

// Without the bound the error of this order would be a text of several
// megabytes.
func TestOrderCreatedBoundsItsFaults(t *testing.T) {
	t.Parallel()
	e := events.OrderCreated{OrderID: 7, CustomerID: 42, Items: make([]events.OrderItem, 100_000)}
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprintf("items[%d].productId is not positive", i), fmt.Sprintf("items[%d].quantity is not positive", i))
	}
	want = append(want, "items has too many faults, it was not checked from items[10] on")
	checkFaults(t, e.Validate(), want...)
}

// An amount that can't be read is found by decoding, before there is anything
// to validate; that error has to name the field as well.
func TestOrderCreatedUnreadableAmountNamesTheField(t *testing.T) {
	t.Parallel()
	const text = `{"orderId":7,"customerId":42,"totalAmount":"1","items":[{"productId":1,"quantity":1,"unitPrice":"%s"}]}`
	var e events.OrderCreated
	err := json.Unmarshal(fmt.Appendf(nil, text, "lots"), &e)
	if err == nil || !strings.Contains(err.Error(), "items.unitPrice") || !strings.Contains(err.Error(), "string that is not a decimal number") {
		t.Errorf("error = %v, want one that names items.unitPrice and the problem", err)
	}
}

package events_test

import (
	"encoding/json"
	"fmt"

	"github.com/gotidings/tidings/events"
)

// The faults of an event, each with the name of its field on the wire.
func ExampleValidationError() {
	order := events.OrderCreated{
		OrderID: 7, CustomerID: 42, TotalAmount: events.MustMoney("59.70"),
		Items: []events.OrderItem{{ProductID: 1, UnitPrice: events.MustMoney("19.90")}},
	}
	fmt.Println(order.Validate())
	order.Items[0].Quantity = 3
	fmt.Println(order.Validate())

	// Output:
	// items[0].quantity is not positive
	// <nil>
}

// An event as one JSON object, for a file or an HTTP body, and back.
func ExampleAppendJSON() {
	md := events.Metadata{ID: "1", Source: "shop", Type: "customer.created", DataContentType: "application/json"}
	text, err := events.AppendJSON(nil, &md, []byte(`{"customerId":42}`))
	if err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%s\n", text)

	received, data, err := events.ParseJSON(text)
	fmt.Println(received.Type, string(data), err)
	_, _, err = events.ParseJSON([]byte(`{"specversion":"1.0","id":1,"source":"shop","type":"customer.created"}`))
	fmt.Println(err)

	// Output:
	// {"specversion":"1.0","id":"1","source":"shop","type":"customer.created","datacontenttype":"application/json","data":{"customerId":42}}
	// customer.created {"customerId":42} <nil>
	// "id" is not a string
}

// Amounts are exact, from wherever they come.
func ExampleMoney() {
	price := events.NewMoney(1990, 2) // cents
	fmt.Println(price, price.Mul(3), price == events.MustMoney("19.90"))

	var received struct {
		AsString, AsNumber events.Money
	}
	if err := json.Unmarshal([]byte(`{"asString": "0.1", "asNumber": 0.2}`), &received); err != nil {
		fmt.Println(err)
	}
	fmt.Println(received.AsString.Add(received.AsNumber))

	// Output:
	// 19.9 59.7 true
	// 0.3
}

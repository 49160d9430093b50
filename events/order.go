package events

import (
	"fmt"
	"strconv"
)

// OrderCreated says that a customer has placed an order.
type OrderCreated struct {
	OrderID    int64 `json:"orderId"`    // positive
	CustomerID int64 `json:"customerId"` // positive

	// TotalAmount is what the customer pays: not negative. It need not be the
	// sum of the items, as discounts, tax and shipping are in it too.
	TotalAmount Money `json:"totalAmount"`

	Items []OrderItem `json:"items"` // at least one; a product may be on several lines
}

// OrderItem is a line of an order.
type OrderItem struct {
	ProductID int64 `json:"productId"` // positive
	Quantity  int64 `json:"quantity"`  // at least 1
	UnitPrice Money `json:"unitPrice"` // of one piece: not negative, 0 for a gift
}

var (
	_ Event     = OrderCreated{}
	_ Keyed     = OrderCreated{}
	_ Validator = OrderCreated{}
)

// EventType returns "order.created".
func (OrderCreated) EventType() string { return "order.created" }

// PartitionKey returns the order's key, "order-7": all events of one order have
// the same.
func (e OrderCreated) PartitionKey() string { return "order-" + strconv.FormatInt(e.OrderID, 10) }

// Validate reports the fields that break their rules as [*ValidationError]
// values, at most about twenty of them; those of an item are named as in
// "items[2].quantity", counting from 0.
func (e OrderCreated) Validate() error {
	var f faults
	f.check("orderId", notPositive(e.OrderID))
	f.check("customerId", notPositive(e.CustomerID))
	f.check("totalAmount", priceProblem(e.TotalAmount))
	if len(e.Items) == 0 {
		f.check("items", "is empty")
	}
	for i, item := range e.Items {
		if len(f) >= maxFaults {
			f.check("items", fmt.Sprintf("has too many faults, it was not checked from items[%d] on", i))
			break
		}
		f.checkItem(i, "productId", notPositive(item.ProductID))
		f.checkItem(i, "quantity", notPositive(item.Quantity))
		f.checkItem(i, "unitPrice", priceProblem(item.UnitPrice))
	}
	return f.err()
}

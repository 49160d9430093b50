package handlers

import (
	"context"
	"fmt"
	"strconv"

	"github.com/gotidings/tidings/events"
)

// Inventory reserves stock.
type Inventory interface {
	// Reserve sets r.Quantity pieces of r.ProductID aside for an order. It
	//
	//   - is called concurrently for different orders, and for the items of one
	//     order one after the other,
	//   - returns nil when the reservation is durable, not before,
	//   - reserves nothing and returns nil when an earlier call with the same
	//     key has returned nil,
	//   - reserves the whole quantity or, with an error, nothing; after an error
	//     it may be called again with the same key, and it doesn't retry on its
	//     own,
	//   - returns when ctx ends.
	//
	// The key alone says what has been done already: an order may have two lines
	// of one product, each with a reservation of its own.
	Reserve(ctx context.Context, key string, r Reservation) error
}

// Reservation is what [Inventory] sets aside: one line of an order.
type Reservation struct {
	OrderID   int64
	ProductID int64
	Quantity  int64 // at least 1
}

// InventoryReservation returns a handler that reserves every item of each new
// order. It is idempotent as far as the inventory is. It panics when inv is nil.
//
// It stops at the first item that can't be reserved. The items before it stay
// reserved; the next delivery passes over them by their keys and goes on where
// this one stopped. Should the order end in the poison queue, they are still
// reserved: redrive it, or release them by their order.
func InventoryReservation(inv Inventory) func(context.Context, events.OrderCreated) error {
	if inv == nil {
		panic("handlers: InventoryReservation: nil Inventory")
	}
	return func(ctx context.Context, e events.OrderCreated) error {
		for i, item := range e.Items {
			// The position, not the product, tells the items apart, see Reserve.
			// It is the same in every delivery.
			itemKey := key(ctx, "reserve-inventory/"+strconv.Itoa(i))
			// One error and not all of them joined: with a permanent and a
			// passing one in it, the verdict on the delivery would be permanent.
			err := inv.Reserve(ctx, itemKey, Reservation{OrderID: e.OrderID, ProductID: item.ProductID, Quantity: item.Quantity})
			if err != nil {
				return fmt.Errorf("reserve items[%d] of order %d, product %d: %w", i, e.OrderID, item.ProductID, err)
			}
		}
		return nil
	}
}

package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/handlers"
)

// A failure in the middle of an order, then a second delivery: every line is
// reserved once, also the two lines of product 1.
func TestInventoryReservationGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	errOut := errors.New("out of stock")
	refilled := false
	s := &service{fail: func(effect any) error {
		if effect.(handlers.Reservation).ProductID == 9 && !refilled {
			return errOut
		}
		return nil
	}}
	handle := handlers.InventoryReservation(s)

	err := handle(delivery(t, events.Metadata{ID: "1", Source: "shop", Attempt: 1}), ordered)
	if want := "reserve items[1] of order 7, product 9: out of stock"; !errors.Is(err, errOut) || err.Error() != want {
		t.Fatalf("error = %v, want %s", err, want)
	}
	line := func(product, quantity int64) handlers.Reservation {
		return handlers.Reservation{OrderID: 7, ProductID: product, Quantity: quantity}
	}
	if diff := cmp.Diff([]any{line(1, 2)}, s.effects); diff != "" {
		t.Errorf("reserved before the failure (-want +got):\n%s", diff)
	}

	refilled = true
	if err := handle(delivery(t, events.Metadata{ID: "1", Source: "shop", Attempt: 2}), ordered); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{line(1, 2), line(9, 5), line(1, 2)}, s.effects); diff != "" {
		t.Errorf("reserved after the retry (-want +got):\n%s", diff)
	}
}

// stock is an Inventory in memory.
type stock struct {
	pieces map[int64]int64 // by product
	done   map[string]bool // keys of the reservations made
}

func (s *stock) Reserve(_ context.Context, key string, r handlers.Reservation) error {
	if s.done[key] {
		return nil
	}
	if s.pieces[r.ProductID] < r.Quantity {
		return errors.New("out of stock")
	}
	s.pieces[r.ProductID] -= r.Quantity
	s.done[key] = true
	return nil
}

func ExampleInventoryReservation() {
	inventory := &stock{pieces: map[int64]int64{1: 10, 2: 0}, done: map[string]bool{}}
	reserve := handlers.InventoryReservation(inventory)

	order := events.OrderCreated{OrderID: 7, CustomerID: 42, Items: []events.OrderItem{
		{ProductID: 1, Quantity: 3},
		{ProductID: 2, Quantity: 1},
	}}
	// The bus makes this context; its metadata says which event it is.
	ctx := events.WithMetadata(context.Background(), &events.Metadata{ID: "order-7-created", Source: "shop"})

	fmt.Println(reserve(ctx, order))
	inventory.pieces[2] = 5
	fmt.Println(reserve(ctx, order)) // the same event, delivered again
	fmt.Println("left:", inventory.pieces)

	// Output:
	// reserve items[1] of order 7, product 2: out of stock
	// <nil>
	// left: map[1:7 2:4]
}

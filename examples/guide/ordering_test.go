package guide

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
)

// region key

// StatusChanged says what became of an order.
type StatusChanged struct {
	OrderID int    `json:"orderId"`
	Status  string `json:"status"`
}

func (StatusChanged) EventType() string { return "order.status_changed" }

// PartitionKey names what the events of one order have in common.
func (e StatusChanged) PartitionKey() string { return fmt.Sprintf("order-%d", e.OrderID) }

// endregion

func Example_ordered() {
	w := newWorld(bus.Config{})
	var mu sync.Mutex
	seen := map[int][]string{}
	failures := 2
	project := func(_ context.Context, e StatusChanged) error {
		mu.Lock()
		defer mu.Unlock()
		if e.OrderID == 1 && failures > 0 {
			failures--
			return errors.New("the database is busy") // what follows of order 1 waits, order 2 does not
		}
		seen[e.OrderID] = append(seen[e.OrderID], e.Status)
		return nil
	}
	// region ordered
	bus.Subscribe(w.Bus, "projection", project, bus.Ordered())
	// endregion
	ctx := context.Background()
	check(w.Start(ctx))
	for _, status := range []string{"placed", "paid", "shipped"} {
		for id := 1; id <= 2; id++ {
			check(w.Publish(ctx, StatusChanged{OrderID: id, Status: status}))
		}
	}
	w.idle()
	w.end()
	fmt.Println(seen)
	// Output: map[1:[placed paid shipped] 2:[placed paid shipped]]
}

// One subscription can have several types, which then are in one order, too.
func Example_severalTypes() {
	w := newWorld(bus.Config{})
	onCustomer := func(_ context.Context, e events.CustomerCreated) error {
		fmt.Println("customer", e.CustomerID)
		return nil
	}
	onOrder := func(_ context.Context, e events.OrderCreated) error {
		fmt.Println("order", e.OrderID, "of customer", e.CustomerID)
		return nil
	}
	ctx := context.Background()
	// region types
	s := w.Subscription("projection", bus.Ordered())
	bus.On(s, onCustomer)
	bus.On(s, onOrder)
	// endregion
	check(w.Start(ctx))
	// region withkey
	check(w.Publish(ctx, ada))
	check(w.Publish(ctx, newOrder(1), bus.WithKey(ada.PartitionKey()))) // in the lane of its customer
	// endregion
	w.idle()
	w.end()
	// Output:
	// customer 42
	// order 1 of customer 42
}

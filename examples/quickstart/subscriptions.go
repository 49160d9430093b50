package main

import (
	"context"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/handlers"
)

// subscribe adds the subscriptions to the bus, and their accounts to the ledger.
func subscribe(b *bus.Bus, l *ledger, c *collaborators) {
	named(b, l, "send-welcome-email", handlers.WelcomeEmail(c))
	named(b, l, "greet-vip", handlers.VIPGreeting(c))
	named(b, l, "reserve-inventory", handlers.InventoryReservation(c))
	named(b, l, "notify-user", handlers.UserNotification(c))
	named(b, l, "record-analytics", handlers.DocumentAnalytics(c))
	named(b, l, "alert-operator", handlers.FailureAlert(c))

	// The audit sees every event, whatever its type and its data, and every copy.
	l.follow("audit", "")
	bus.SubscribeRaw(b, "audit", []string{"#"}, func(ctx context.Context, _ bus.Raw) error {
		l.handled(ctx, "audit")
		return nil
	}, bus.WithoutDedup())
}

// named subscribes a handler of one type that tells the ledger when it has handled
// an event.
func named[E events.Event](b *bus.Bus, l *ledger, name string, handle func(context.Context, E) error) {
	var zero E
	l.follow(name, zero.EventType())
	bus.Subscribe(b, name, func(ctx context.Context, e E) error {
		if err := handle(ctx, e); err != nil {
			return err
		}
		l.handled(ctx, name)
		return nil
	})
}

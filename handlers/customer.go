package handlers

import (
	"context"
	"fmt"

	"github.com/gotidings/tidings/events"
)

// Mailer sends e-mail to customers. Its methods
//
//   - are called concurrently, up to the concurrency of the subscriptions,
//   - return nil when the e-mail is accepted for delivery, not before,
//   - send nothing and return nil when an earlier call with the same key has
//     returned nil,
//   - may be called again with the same key after an error, and don't retry on
//     their own,
//   - return when ctx ends.
//
// Names and addresses come from outside and are checked little: an address is
// text on both sides of one @, and may contain line breaks. A mailer that builds
// headers has to escape them, as net/mail does.
type Mailer interface {
	// SendWelcome sends the welcome e-mail to customer.Email. The name may be
	// empty.
	SendWelcome(ctx context.Context, key string, customer events.CustomerCreated) error

	// SendVIPGreeting congratulates a customer. The event has no address: look
	// it up by customer.CustomerID. The name may be empty.
	SendVIPGreeting(ctx context.Context, key string, customer events.CustomerPromotedToVIP) error
}

// WelcomeEmail returns a handler that sends each new customer the welcome
// e-mail. It is idempotent as far as the mailer is. It panics when m is nil.
func WelcomeEmail(m Mailer) func(context.Context, events.CustomerCreated) error {
	if m == nil {
		panic("handlers: WelcomeEmail: nil Mailer")
	}
	return func(ctx context.Context, e events.CustomerCreated) error {
		if err := m.SendWelcome(ctx, key(ctx, "welcome-email"), e); err != nil {
			return fmt.Errorf("welcome customer %d: %w", e.CustomerID, err)
		}
		return nil
	}
}

// VIPGreeting returns a handler that congratulates each customer who becomes a
// VIP. It is idempotent as far as the mailer is. It panics when m is nil.
func VIPGreeting(m Mailer) func(context.Context, events.CustomerPromotedToVIP) error {
	if m == nil {
		panic("handlers: VIPGreeting: nil Mailer")
	}
	return func(ctx context.Context, e events.CustomerPromotedToVIP) error {
		if err := m.SendVIPGreeting(ctx, key(ctx, "vip-greeting"), e); err != nil {
			return fmt.Errorf("greet VIP customer %d: %w", e.CustomerID, err)
		}
		return nil
	}
}

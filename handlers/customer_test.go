package handlers_test

import (
	"context"
	"fmt"
	"time"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/handlers"
)

// printer is a Mailer that prints what it would send.
type printer struct {
	sent      map[string]bool  // keys of the e-mails sent
	addresses map[int64]string // by customer
}

func (p printer) send(key, to, text string) error {
	if !p.sent[key] {
		fmt.Printf("to %s: %s\n", to, text)
		p.sent[key] = true
	}
	return nil
}

func (p printer) SendWelcome(_ context.Context, key string, c events.CustomerCreated) error {
	return p.send(key, c.Email, "Welcome, "+c.CustomerName)
}

func (p printer) SendVIPGreeting(_ context.Context, key string, c events.CustomerPromotedToVIP) error {
	return p.send(key, p.addresses[c.CustomerID], c.CustomerName+", you are a VIP now")
}

func ExampleWelcomeEmail() {
	welcome := handlers.WelcomeEmail(printer{sent: map[string]bool{}})

	ada := events.CustomerCreated{CustomerID: 42, CustomerName: "Ada", Email: "ada@example.com"}
	// The bus makes this context; its metadata says which event it is.
	ctx := events.WithMetadata(context.Background(), &events.Metadata{ID: "ada-created", Source: "shop"})

	fmt.Println(welcome(ctx, ada))
	fmt.Println(welcome(ctx, ada)) // the same event, delivered again

	// Output:
	// to ada@example.com: Welcome, Ada
	// <nil>
	// <nil>
}

func ExampleVIPGreeting() {
	greet := handlers.VIPGreeting(printer{
		sent:      map[string]bool{},
		addresses: map[int64]string{42: "ada@example.com"},
	})

	ada := events.CustomerPromotedToVIP{CustomerID: 42, CustomerName: "Ada", PromotedAt: time.Now()}
	ctx := events.WithMetadata(context.Background(), &events.Metadata{ID: "ada-promoted", Source: "shop"})
	fmt.Println(greet(ctx, ada))

	// Output:
	// to ada@example.com: Ada, you are a VIP now
	// <nil>
}

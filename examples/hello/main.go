// Command hello publishes one event and handles it: the library in 25 lines.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
	_ "github.com/gotidings/tidings/transports/memory"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// region hello
func run(ctx context.Context) error {
	transport, err := transports.Open(ctx, "memory://")
	if err != nil {
		return err
	}
	defer transport.Close()
	b, err := bus.New(transport, bus.Config{Source: "shop"})
	if err != nil {
		return err
	}
	handled := make(chan struct{})
	bus.Subscribe(b, "send-welcome-email", func(ctx context.Context, e events.CustomerCreated) error {
		defer close(handled)
		_, err := fmt.Println("welcome,", e.Email)
		return err // nil acknowledges; an error is retried; bus.Permanent(err) goes to the poison queue
	})
	if err := b.Start(ctx); err != nil {
		return err
	}
	if err := b.Publish(ctx, events.CustomerCreated{CustomerID: 42, Email: "ada@example.com"}); err != nil {
		return err // nil means that the transport has stored it
	}
	<-handled
	return b.Shutdown(ctx)
}

// endregion

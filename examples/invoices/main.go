// Command invoices is the program of docs/getting-started.md: it publishes events of its
// own, handles them, meets failures of both kinds, and redrives what was poisoned.
//
//	invoices [URL of a transport]
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"

	// What a URL can open is what is imported; the tables also need a driver of database/sql.
	_ "github.com/jackc/pgx/v5/stdlib"

	_ "github.com/gotidings/tidings/transports/memory"
	_ "github.com/gotidings/tidings/transports/rabbitmq"
	_ "github.com/gotidings/tidings/transports/sql"
)

// region event

// InvoicePaid is an event: a plain struct with a name that never changes.
type InvoicePaid struct {
	InvoiceID int    `json:"invoiceId"`
	Email     string `json:"email"`
}

func (InvoicePaid) EventType() string { return "invoice.paid" }

// Validate is optional: Publish refuses what is not valid, and what arrives so is poisoned.
func (e InvoicePaid) Validate() error {
	if e.Email == "" {
		return errors.New("email is empty")
	}
	return nil
}

// endregion

func main() {
	url := "memory://"
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	if err := run(context.Background(), url, "invoices", os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url, service string, out io.Writer) (err error) {
	outcomes := make(chan bus.Delivery, 100)
	// region open
	transport, err := transports.Open(ctx, url) // "memory://", "amqp://…", "postgres://…"
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, transport.Close()) }()
	b, err := bus.New(transport, bus.Config{
		Source:     service, // who publishes; it also begins the names of the queues
		OnDelivery: func(d bus.Delivery) { outcomes <- d },
	})
	if err != nil {
		return err
	}
	// endregion
	defer func() {
		// The queue goes as well, so that the next run begins afresh. A service keeps it.
		err = errors.Join(err, b.Shutdown(ctx), b.RemoveSubscription(ctx, "send-receipt"))
	}()

	var full atomic.Bool
	full.Store(true)
	// region subscribe
	bus.Subscribe(b, "send-receipt", func(ctx context.Context, e InvoicePaid) error {
		md, _ := events.MetadataFrom(ctx) // id, source, time, attempt, …
		switch {
		case e.InvoiceID == 2 && md.Attempt < 3:
			return errors.New("the mail server is busy") // tried again
		case e.InvoiceID == 3 && full.Load():
			return bus.Permanent(errors.New("the mailbox is full")) // no use trying again
		}
		fmt.Fprintf(out, "receipt for invoice %d, attempt %d\n", e.InvoiceID, md.Attempt)
		return nil
	}, bus.Concurrency(1), bus.Retry(bus.RetryPolicy{Attempts: 2, Redeliveries: []time.Duration{time.Second}}))
	if err := b.Start(ctx); err != nil { // returns when the queue exists
		return err
	}
	// endregion

	// region publish
	for id := 1; id <= 3; id++ {
		if err := b.Publish(ctx, InvoicePaid{InvoiceID: id, Email: "ada@example.com"}); err != nil {
			return err // nil means that the transport has stored it
		}
	}
	// endregion
	if err := wait(ctx, outcomes, bus.Handled, bus.Handled, bus.Poisoned); err != nil {
		return err
	}

	// region poison
	for p, err := range b.Poisoned(ctx, "send-receipt") {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "poisoned: %s %s: %s\n", p.Topic, p.Message.Payload, p.Reason)
	}
	full.Store(false) // mend the cause first
	n, err := b.Redrive(ctx, "send-receipt", bus.Selection{})
	if err != nil {
		return err
	}
	// endregion
	if err := wait(ctx, outcomes, bus.Handled); err != nil {
		return err
	}
	fmt.Fprintf(out, "redriven: %d\n", n)
	return nil
}

// wait returns when there were deliveries of these outcomes, in any order.
func wait(ctx context.Context, outcomes <-chan bus.Delivery, want ...bus.Outcome) error {
	missing := map[bus.Outcome]int{}
	for _, o := range want {
		missing[o]++
	}
	for left := len(want); left > 0; {
		select {
		case d := <-outcomes:
			if missing[d.Outcome] > 0 {
				missing[d.Outcome]--
				left--
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

package guide

import (
	"context"
	"errors"
	"fmt"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// region both

// consumeBoth handles what still comes by the old transport and what comes by the new one.
// An event is published to one of them, so it is handled once.
func consumeBoth(ctx context.Context, from []transports.Transport, subscribe func(*bus.Bus)) (stop func(context.Context) error, err error) {
	var started []*bus.Bus
	stop = func(ctx context.Context) error {
		var errs []error
		for _, b := range started {
			errs = append(errs, b.Shutdown(ctx))
		}
		return errors.Join(errs...)
	}
	for _, transport := range from {
		b, err := bus.New(transport, bus.Config{Source: "shop"})
		if err != nil {
			return nil, errors.Join(err, stop(ctx))
		}
		subscribe(b) // the same subscriptions and handlers
		if err := b.Start(ctx); err != nil {
			return nil, errors.Join(err, stop(ctx))
		}
		started = append(started, b)
	}
	return stop, nil
}

// endregion

func Example_moveToAnotherTransport() {
	ctx := context.Background()
	before, after := newWorld(bus.Config{}), newWorld(bus.Config{})
	handled := make(chan string)
	stop, err := consumeBoth(ctx, []transports.Transport{before.transport, after.transport}, func(b *bus.Bus) {
		bus.Subscribe(b, "welcome", func(_ context.Context, e events.CustomerCreated) error {
			handled <- e.Email
			return nil
		})
	})
	check(err)
	check(before.Publish(ctx, ada))
	fmt.Println("by the old one:", <-handled)
	check(after.Publish(ctx, ada))
	fmt.Println("by the new one:", <-handled)
	check(stop(ctx))
	before.end()
	after.end()
	// Output:
	// by the old one: ada@example.com
	// by the new one: ada@example.com
}

package watermill_test

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports/watermill"
)

// A bus on a Watermill Pub/Sub.
func ExampleNew() {
	// region new
	pubSub := gochannel.NewGoChannel(gochannel.Config{}, nil)
	transport, err := watermill.New(pubSub, pubSub, watermill.Config{
		Sharing: watermill.FanOut, // each subscription of a GoChannel gets every message
	})
	check(err)
	// endregion
	b, err := bus.New(transport, bus.Config{Source: "shop"})
	check(err)
	handled := make(chan struct{})
	bus.Subscribe(b, "mail", func(_ context.Context, e events.CustomerCreated) error {
		defer close(handled)
		fmt.Println("welcome,", e.Email)
		return nil
	})
	ctx := context.Background()
	check(b.Start(ctx))
	check(b.Publish(ctx, events.CustomerCreated{CustomerID: 42, CustomerName: "Ada", Email: "ada@example.com"}))
	<-handled
	check(b.Shutdown(ctx))
	check(transport.Close())
	// Output: welcome, ada@example.com
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

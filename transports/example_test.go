package transports_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// A plain Watermill router on a transport, with the library's middleware: one
// handler that answers an event with another, and one that consumes the answer.
func ExampleAsSubscriber() {
	transport, err := memory.New(memory.Config{})
	check(err)
	// region router
	subscriber, err := transports.AsSubscriber(transport, transports.SubscriberConfig{
		Group: "shop", Concurrency: 10, DrainTimeout: time.Minute,
	})
	check(err)
	const orders = "shop.order.created" // group and topic

	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	check(err)
	router.AddMiddleware(
		middleware.Recover,
		middleware.Correlation(orders),
		middleware.Poison(middleware.PoisonConfig{Subscription: orders, Queue: transport}),
		middleware.Retry(middleware.RetryConfig{Attempts: 3, MinDelay: time.Millisecond}),
		middleware.Timeout(time.Minute),
	)
	failures := 2
	router.AddHandler("order-handler", "order.created", subscriber, "order.accepted", transports.AsPublisher(transport),
		func(msg *message.Message) ([]*message.Message, error) {
			if failures > 0 {
				failures--
				fmt.Println(msg.UUID, "fails")
				return nil, errors.New("database is down")
			}
			fmt.Println(msg.UUID, "succeeds")
			return message.Messages{newEvent("accepted-1", "order.accepted")}, nil
		})
	// endregion
	done := make(chan struct{})
	router.AddConsumerHandler("mailer", "order.accepted", subscriber, func(msg *message.Message) error {
		fmt.Println("mail for", msg.UUID)
		close(done)
		return nil
	})

	ended := make(chan error, 1)
	go func() { ended <- router.Run(context.Background()) }()
	<-router.Running()
	check(transport.Publish("order.created", newEvent("order-1", "order.created")))
	<-done
	check(router.Close())
	check(<-ended)
	check(transport.Close())
	// Output:
	// order-1 fails
	// order-1 fails
	// order-1 succeeds
	// mail for accepted-1
}

func newEvent(id, eventType string) *message.Message {
	md := events.Metadata{Source: "shop", Type: eventType}
	msg := message.NewMessage(id, []byte(`{}`))
	msg.Metadata = md.Encode()
	return msg
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// memoryCases measure from publish to handled in one process: JSON, one event type,
// one subscription, a handler that returns at once.
func memoryCases() []benchCase {
	var cases []benchCase
	for _, publishers := range []int{1, 8} {
		add := func(peer string, prepare func(l *ledger, publishers int) (rig, error)) {
			cases = append(cases, benchCase{
				group:   "memory",
				variant: fmt.Sprintf("publishers=%d", publishers),
				peer:    peer,
				note:    memoryNotes[peer],
				prepare: func(_ context.Context, l *ledger) (rig, error) { return prepare(l, publishers) },
			})
		}
		add(reference, func(l *ledger, publishers int) (rig, error) { return prepareBus(l, publishers) })
		add("watermill", prepareWatermill)
		add("watermill-blocking", prepareWatermillBlocking)
		// For orientation, what the layers cost: without one of them, and without any.
		add("tidings-nodedup", func(l *ledger, publishers int) (rig, error) {
			return prepareBus(l, publishers, bus.WithoutDedup())
		})
		add("transport-router", prepareTransport)
		add("router", prepareRouter)
	}
	return cases
}

// memoryNotes say of the peers of the targets what they are.
var memoryNotes = map[string]string{
	"watermill": "GoChannel, the CQRS component and the middlewares that do what the bus does by default",
	"router":    "Watermill's router with JSON, on a Go channel: no transport, no middleware, the limit",
}

// prepareBus is the library with everything at its default: correlation, poison
// queue, redelivery, deduplication, retry, recovery; up to 16 events handled at a
// time; a queue of 10,000, beyond which publishers wait.
func prepareBus(l *ledger, publishers int, opts ...bus.SubscribeOption) (rig, error) {
	return prepareBusWith(l, publishers, bus.Config{Source: "bench"}, opts...)
}

func prepareBusWith(l *ledger, publishers int, cfg bus.Config, opts ...bus.SubscribeOption) (rig, error) {
	transport, err := memory.New(memory.Config{})
	if err != nil {
		return rig{}, err
	}
	b, err := bus.New(transport, cfg)
	if err != nil {
		return rig{}, err
	}
	bus.Subscribe(b, "handler", func(_ context.Context, e purchase) error {
		l.handled(e)
		return nil
	}, opts...)
	if err := b.Start(context.Background()); err != nil {
		return rig{}, errors.Join(err, transport.Close())
	}
	return rig{
		run: func(ctx context.Context) error {
			return l.publish(ctx, publishers, func(ctx context.Context, e purchase) error { return b.Publish(ctx, e) })
		},
		close: func() error { return errors.Join(b.Shutdown(context.Background()), transport.Close()) },
	}, nil
}

// prepareTransport is the memory transport under a Watermill router without
// middleware: what is left when the bus is taken away.
func prepareTransport(l *ledger, publishers int) (rig, error) {
	transport, err := memory.New(memory.Config{})
	if err != nil {
		return rig{}, err
	}
	router, err := message.NewRouter(message.RouterConfig{}, nil)
	if err != nil {
		return rig{}, err
	}
	router.AddConsumerHandler("handler", purchaseType, asSubscriber{transport}, decoded(l))
	stop := start(router)
	return rig{
		run: func(ctx context.Context) error {
			return l.publish(ctx, publishers, func(ctx context.Context, e purchase) error {
				data, err := json.Marshal(e)
				if err != nil {
					return err
				}
				return transport.Publish(purchaseType, message.NewMessageWithContext(ctx, events.NewID(), data))
			})
		},
		close: func() error { return errors.Join(stop(), transport.Close()) },
	}, nil
}

// prepareRouter is JSON and Watermill's router, with a Go channel of messages in place of a
// transport: nothing that is encoded, handled by the router and decoded can be faster.
func prepareRouter(l *ledger, publishers int) (rig, error) {
	router, err := message.NewRouter(message.RouterConfig{}, nil)
	if err != nil {
		return rig{}, err
	}
	messages := make(asChannel, 10_000)
	router.AddConsumerHandler("handler", purchaseType, messages, decoded(l))
	stop := start(router)
	return rig{
		run: func(ctx context.Context) error {
			return l.publish(ctx, publishers, func(_ context.Context, e purchase) error {
				data, err := json.Marshal(e)
				if err != nil {
					return err
				}
				messages <- message.NewMessage(events.NewID(), data)
				return nil
			})
		},
		close: stop,
	}, nil
}

// decoded is a Watermill handler of JSON, which it decodes as the bus does.
func decoded(l *ledger) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		var e purchase
		if err := (bus.JSON{}).Unmarshal(msg.Payload, &e); err != nil {
			return err
		}
		l.handled(e)
		return nil
	}
}

// asChannel is a channel as a Watermill subscriber, for one subscription.
type asChannel chan *message.Message

func (c asChannel) Subscribe(context.Context, string) (<-chan *message.Message, error) { return c, nil }

func (c asChannel) Close() error {
	close(c)
	return nil
}

// start runs a router until the function that it returns is called.
func start(router *message.Router) (stop func() error) {
	ended := make(chan error, 1)
	go func() { ended <- router.Run(context.Background()) }() // ends with stop
	select {
	case <-router.Running():
	case err := <-ended:
		return func() error { return err }
	}
	return func() error { return errors.Join(router.Close(), <-ended) }
}

// asSubscriber makes a transport a Watermill subscriber with as much in flight as
// the bus has by default.
type asSubscriber struct{ transport transports.Transport }

func (s asSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	return s.transport.Subscribe(ctx, transports.Subscription{Name: "bench.handler", Topics: []string{topic}, Concurrency: 32})
}

// Close does nothing: the router ends the subscription's context.
func (asSubscriber) Close() error { return nil }

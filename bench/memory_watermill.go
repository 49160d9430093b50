package main

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

// The peer is Watermill's CQRS component, which is its API for typed events, on
// GoChannel, which is its Pub/Sub in memory, with those of its middlewares that do
// what the bus does by default. Where there was a choice that its documentation
// leaves open, the peer has the faster one.

// watermillBuffer is GoChannel's OutputChannelBuffer: as much as the bus's queue
// holds. From 0 to 1,000,000, its authors' benchmarks having as much as there are
// messages, it made no difference that could be told from noise, in either mode.
const watermillBuffer = 10_000

// prepareWatermill is GoChannel's default mode: Publish returns at once, and each
// message waits in goroutines of its own, however many there are. Nothing holds a
// publisher back.
func prepareWatermill(l *ledger, publishers int) (rig, error) {
	return prepareCQRS(l, publishers, gochannel.Config{OutputChannelBuffer: watermillBuffer})
}

// prepareWatermillBlocking is GoChannel's other mode: Publish returns when the
// message was handled, so there is one at a time for each topic.
func prepareWatermillBlocking(l *ledger, publishers int) (rig, error) {
	return prepareCQRS(l, publishers, gochannel.Config{OutputChannelBuffer: watermillBuffer, BlockPublishUntilSubscriberAck: true})
}

func prepareCQRS(l *ledger, publishers int, config gochannel.Config) (rig, error) {
	// No logger anywhere: nil is Watermill's logger that discards.
	pubSub := gochannel.NewGoChannel(config, nil)
	router, err := message.NewRouter(message.RouterConfig{}, nil)
	if err != nil {
		return rig{}, err
	}
	stack, err := watermillStack{poison: pubSub, poisonTopic: "poison", dedup: true, retry: middleware.Retry{
		MaxRetries: 2, InitialInterval: 20 * time.Millisecond, MaxInterval: time.Second, Multiplier: 2, // the bus's numbers; nothing fails here
	}}.middleware()
	if err != nil {
		return rig{}, err
	}
	router.AddMiddleware(stack...)

	// By default the name is made by fmt from the Go type, three times for each
	// event. NamedStruct asks the event for it, as the bus does, and is faster. The
	// message's id is the default, a random UUID; the bus makes UUIDv7.
	marshaler := cqrs.JSONMarshaler{GenerateName: cqrs.NamedStruct(cqrs.FullyQualifiedStructName)}
	processor, err := cqrs.NewEventProcessorWithConfig(router, cqrs.EventProcessorConfig{
		GenerateSubscribeTopic: func(p cqrs.EventProcessorGenerateSubscribeTopicParams) (string, error) { return p.EventName, nil },
		SubscriberConstructor:  func(cqrs.EventProcessorSubscriberConstructorParams) (message.Subscriber, error) { return pubSub, nil },
		Marshaler:              marshaler,
	})
	if err != nil {
		return rig{}, err
	}
	err = processor.AddHandlers(cqrs.NewEventHandler("handler", func(_ context.Context, e *purchase) error {
		l.handled(*e)
		return nil
	}))
	if err != nil {
		return rig{}, err
	}
	eventBus, err := cqrs.NewEventBusWithConfig(pubSub, cqrs.EventBusConfig{
		GeneratePublishTopic: func(p cqrs.GenerateEventPublishTopicParams) (string, error) { return p.EventName, nil },
		Marshaler:            marshaler,
		// The CorrelationID middleware passes on what was set when the first message
		// entered the system, so that has to be done; the bus does it as well. Its own
		// id is the cheapest there is.
		OnPublish: func(p cqrs.OnEventSendParams) error {
			middleware.SetCorrelationID(p.Message.UUID, p.Message)
			return nil
		},
	})
	if err != nil {
		return rig{}, err
	}
	stop := start(router)
	return rig{
		run: func(ctx context.Context) error {
			return l.publish(ctx, publishers, func(ctx context.Context, e purchase) error { return eventBus.Publish(ctx, e) })
		},
		close: func() error { return errors.Join(stop(), pubSub.Close()) },
	}, nil
}

// watermillStack is the equivalent of the bus's default stack.
type watermillStack struct {
	poison      message.Publisher
	poisonTopic string
	retry       middleware.Retry
	dedup       bool // which the bus does on a transport that forgets
}

// middleware returns the stack, outermost first, in the order in which its parts work
// together: what a retry did not mend is poisoned, and a retry is not taken for a
// duplicate. Redelivery has no equivalent.
func (s watermillStack) middleware() ([]message.HandlerMiddleware, error) {
	poisonQueue, err := middleware.PoisonQueue(s.poison, s.poisonTopic)
	if err != nil {
		return nil, err
	}
	if !s.dedup {
		return []message.HandlerMiddleware{middleware.CorrelationID, poisonQueue, s.retry.Middleware, middleware.Recoverer}, nil
	}
	// Memory for an hour, as the bus's. The default is a minute, but how long makes
	// no difference in a run of seconds.
	seen, err := middleware.NewMapExpiringKeyRepository(time.Hour)
	if err != nil {
		return nil, err
	}
	deduplicator := &middleware.Deduplicator{
		// By default the key is the Adler-32 of the payload, of which 100,000 of these
		// events have some 2,800 different ones: the others would be dropped. By id
		// all are handled, nothing is computed, and the bus does the same.
		KeyFactory: func(msg *message.Message) (string, error) { return msg.UUID, nil },
		Repository: seen,
		Timeout:    time.Minute, // its default, which counts only in a nil Deduplicator
	}
	return []message.HandlerMiddleware{
		middleware.CorrelationID,
		poisonQueue,
		deduplicator.Middleware,
		s.retry.Middleware,
		middleware.Recoverer,
	}, nil
}

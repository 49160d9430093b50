package main

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/events"
)

// watermillConfig is watermill-amqp's configuration for durable messages through an
// exchange, with confirms; all else at its default.
func watermillConfig(broker string, kind queueType) wamqp.Config {
	config := wamqp.NewDurablePubSubConfig(broker, wamqp.GenerateQueueNameTopicName)
	config.Publish.ConfirmDelivery = true
	if kind != classic { // the broker's default
		config.Queue.Arguments = amqp.Table{amqp.QueueTypeArg: string(kind)}
	}
	return config
}

// prepareWatermillPublish publishes messages with the metadata that the bus's have.
func prepareWatermillPublish(kind queueType) func(context.Context, string, publishing, *ledger) (rig, error) {
	return func(ctx context.Context, broker string, p publishing, l *ledger) (rig, error) {
		s, err := newSite(broker)
		if err != nil {
			return rig{}, err
		}
		config := watermillConfig(broker, kind)
		if err := initializeWatermill(config, s.name); err != nil {
			return rig{}, errors.Join(err, s.close())
		}
		publisher, err := wamqp.NewPublisher(config, watermill.NopLogger{})
		if err != nil {
			return rig{}, errors.Join(err, s.close())
		}
		closeAll := func() error { return errors.Join(publisher.Close(), s.close()) }
		model, err := busMessage(ctx)
		if err != nil {
			return rig{}, errors.Join(err, closeAll())
		}
		run := func(ctx context.Context) error {
			return l.publishBatches(ctx, p, func(ctx context.Context, batch []purchase) error {
				messages, err := like(ctx, model, batch)
				if err != nil {
					return err
				}
				return publisher.Publish(s.name, messages...)
			})
		}
		return rig{run: run, close: closeAll}, nil
	}
}

// initializeWatermill makes the exchanges and queues of topics, which bear their names.
func initializeWatermill(config wamqp.Config, topics ...string) error {
	subscriber, err := wamqp.NewSubscriber(config, watermill.NopLogger{})
	for _, topic := range topics {
		if err == nil {
			err = subscriber.SubscribeInitialize(topic)
		}
	}
	if subscriber == nil {
		return err
	}
	return errors.Join(err, subscriber.Close())
}

// prepareWatermillConsume handles a backlog through a router, with the middlewares that
// do what the bus does on a durable transport by default.
func prepareWatermillConsume(kind queueType) func(context.Context, string, handling, *ledger) (rig, error) {
	return func(ctx context.Context, broker string, h handling, l *ledger) (rig, error) {
		s, err := newSite(broker)
		if err != nil {
			return rig{}, err
		}
		config := watermillConfig(broker, kind)
		model, err := busMessage(ctx)
		if err == nil {
			err = initializeWatermill(config, s.name, s.poison())
		}
		if err == nil {
			err = s.fill(ctx, "", l, func(data []byte) amqp.Publishing {
				msg := message.NewMessage(events.NewID(), data)
				msg.Metadata = model.Metadata
				p, _ := wamqp.DefaultMarshaler{}.Marshal(msg) // it has no error
				return p
			})
		}
		if err != nil {
			return rig{}, errors.Join(err, s.close())
		}
		subscriber, err := wamqp.NewSubscriber(config, watermill.NopLogger{})
		if err != nil {
			return rig{}, errors.Join(err, s.close())
		}
		publisher, err := wamqp.NewPublisher(config, watermill.NopLogger{})
		if err != nil {
			return rig{}, errors.Join(err, subscriber.Close(), s.close())
		}
		closeAll := func() error { return errors.Join(subscriber.Close(), publisher.Close(), s.close()) }
		router, err := message.NewRouter(message.RouterConfig{}, nil)
		if err != nil {
			return rig{}, errors.Join(err, closeAll())
		}
		stack, err := watermillStack{poison: publisher, poisonTopic: s.poison(), retry: middleware.Retry{
			MaxRetries: retries, InitialInterval: retryDelay, MaxInterval: retryDelay, Multiplier: 1,
		}}.middleware()
		if err != nil {
			return rig{}, errors.Join(err, closeAll())
		}
		router.AddMiddleware(stack...)
		handle := decoding(h.handler(l))
		router.AddConsumerHandler(handlerName, s.name, subscriber, func(msg *message.Message) error {
			return handle(msg.Context(), msg.Payload)
		})
		stop := func() error { return nil }
		return rig{
			run: func(context.Context) error {
				stop = start(router)
				return nil
			},
			close: func() error { return errors.Join(stop(), closeAll()) },
		}, nil
	}
}

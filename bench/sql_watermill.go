package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
)

// The peer is watermill-sql with its default schema and offsets, under a router without
// middleware that decodes JSON. Where a setting makes it faster it has that setting.

// prepareWatermillSQL is work on watermill-sql. preload publishes before the measured
// time, 0 publishers otherwise.
func prepareWatermillSQL(ctx context.Context, l *ledger, d sqlDatabase, work time.Duration, publishers int) (r rig, err error) {
	db, name, clean, err := d.open(ctx)
	if err != nil {
		return rig{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, clean())
		}
	}()
	topic := name + "_" + "purchase"
	publisher, err := wsql.NewPublisher(db, wsql.PublisherConfig{SchemaAdapter: d.schema, AutoInitializeSchema: true}, nil)
	if err != nil {
		return rig{}, err
	}
	subscriber, err := wsql.NewSubscriber(db, wsql.SubscriberConfig{
		ConsumerGroup: "bench", SchemaAdapter: d.schema, OffsetsAdapter: d.offsets, InitializeSchema: true,
	}, nil)
	if err != nil {
		return rig{}, err
	}
	if err := subscriber.SubscribeInitialize(topic); err != nil {
		return rig{}, err
	}
	send := func(ctx context.Context, batch ...purchase) error {
		msgs := make([]*message.Message, len(batch))
		for i, e := range batch {
			var err error
			if msgs[i], err = plainMessage(ctx, e); err != nil {
				return err
			}
		}
		return publisher.Publish(topic, msgs...)
	}
	if publishers == 0 {
		if err := inBatches(l, func(batch []purchase) error { return send(ctx, batch...) }); err != nil {
			return rig{}, err
		}
	}
	router, err := message.NewRouter(message.RouterConfig{}, nil)
	if err != nil {
		return rig{}, err
	}
	router.AddConsumerHandler("handler", topic, subscriber, func(msg *message.Message) error {
		var e purchase
		if err := json.Unmarshal(msg.Payload, &e); err != nil {
			return err
		}
		if err := pretend(msg.Context(), work); err != nil {
			return err
		}
		l.handled(e)
		return nil
	})
	stop := func() error { return nil }
	run := func(context.Context) error { // the backlog is there
		stop = start(router)
		return nil
	}
	if publishers != 0 {
		stop = start(router)
		run = l.publishing(publishers, func(ctx context.Context, e purchase) error { return send(ctx, e) })
	}
	return rig{run: run, close: func() error {
		return errors.Join(stop(), subscriber.Close(), clean())
	}}, nil
}

// plainMessage is an event as a message that was made without the bus.
func plainMessage(ctx context.Context, e purchase) (*message.Message, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	msg := message.NewMessageWithContext(ctx, events.NewID(), data)
	for _, key := range []string{"ce_source", "ce_type", "ce_time", "ce_correlationid", "content-type"} {
		msg.Metadata[key] = "2026-02-03T04:05:06.7Z" // as much as the bus writes
	}
	return msg, nil
}

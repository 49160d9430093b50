package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
)

// prepareForwarder is Watermill's forwarder on watermill-sql.
func prepareForwarder(ctx context.Context, l *ledger, d sqlDatabase, broker string) (*outboxRig, error) {
	db, name, closeDB, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	r := &outboxRig{db: db, closers: []func() error{closeDB}}
	fail := func(err error) (*outboxRig, error) { return nil, errors.Join(err, r.close()) }
	// Its tables have no schema: they are named, and dropped, by hand.
	schema := wsql.DefaultPostgreSQLSchema{GenerateMessagesTableName: func(string) string { return `"` + name + `"` }}
	offsets := wsql.DefaultPostgreSQLOffsetsAdapter{GenerateMessagesOffsetsTableName: func(string) string { return `"` + name + `_offsets"` }}
	r.closers = append(r.closers, func() error {
		_, err := db.ExecContext(context.WithoutCancel(ctx), `drop table if exists "`+name+`", "`+name+`_offsets"`)
		return err
	})
	s, err := newSite(broker)
	if err != nil {
		return fail(err)
	}
	r.closers = append(r.closers, s.close)
	config := watermillConfig(broker, quorum)
	to, err := wamqp.NewPublisher(config, watermill.NopLogger{})
	if err != nil {
		return fail(err)
	}
	if err := declareQueue(config, s.name); err != nil {
		return fail(errors.Join(err, to.Close()))
	}
	sub, err := wsql.NewSubscriber(db, wsql.SubscriberConfig{
		SchemaAdapter: schema, OffsetsAdapter: offsets, InitializeSchema: true,
	}, watermill.NopLogger{})
	if err != nil {
		return fail(errors.Join(err, to.Close()))
	}
	const topic = "forwarder"
	if err := sub.SubscribeInitialize(topic); err != nil {
		return fail(errors.Join(err, to.Close()))
	}
	r.relay = func(ctx context.Context) error {
		f, err := forwarder.NewForwarder(sub, &notingPublisher{to, r, l}, watermill.NopLogger{}, forwarder.Config{ForwarderTopic: topic})
		if err != nil {
			return err
		}
		return f.Run(ctx)
	}
	r.closers = append(r.closers, to.Close, sub.Close)
	r.fill = func(ctx context.Context, all []purchase) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		if err := fillForwarder(ctx, tx, schema, topic, s.name, all); err != nil {
			return err
		}
		return tx.Commit()
	}
	return r, nil
}

func fillForwarder(ctx context.Context, tx *sql.Tx, schema wsql.SchemaAdapter, topic, queue string, all []purchase) error {
	pub, err := wsql.NewPublisher(tx, wsql.PublisherConfig{SchemaAdapter: schema}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	messages := make([]*message.Message, len(all))
	for i, e := range all {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		messages[i] = message.NewMessage(events.NewID(), data)
		messages[i].SetContext(ctx)
	}
	return forwarder.NewPublisher(pub, forwarder.PublisherConfig{ForwarderTopic: topic}).Publish(queue, messages...)
}

// declareQueue makes the queue of a topic, as a subscriber would.
func declareQueue(config wamqp.Config, topic string) error {
	sub, err := wamqp.NewSubscriber(config, watermill.NopLogger{})
	if err != nil {
		return err
	}
	return errors.Join(sub.SubscribeInitialize(topic), sub.Close())
}

// notingPublisher notes what a publisher has had confirmed.
type notingPublisher struct {
	message.Publisher
	rig *outboxRig
	l   *ledger
}

func (p *notingPublisher) Publish(topic string, messages ...*message.Message) error {
	if err := p.Publisher.Publish(topic, messages...); err != nil {
		return err
	}
	for _, msg := range messages {
		if err := p.rig.sent(p.l, msg.Payload); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// brokerCases measure publishing and consuming apart, at one RabbitMQ server: durable
// queues, persistent messages, every publish confirmed.
//
// raw is the AMQP client alone, sending the message that the library sends, byte for
// byte but for its id, to the same kind of queue. watermill-amqp is Watermill's Pub/Sub
// as its documentation sets it up; -quorum is the same on the library's kind of queue.
func brokerCases(broker string) []benchCase {
	var cases []benchCase
	add := func(group, variant, peer string, most int, prepare func(ctx context.Context, l *ledger) (rig, error)) {
		cases = append(cases, benchCase{
			group: group, variant: variant, peer: peer, note: brokerNotes[peer],
			most: most, needsBroker: true, prepare: prepare,
		})
	}
	for _, p := range []publishing{{callers: 1, batch: 100}, {callers: 64, batch: 1}} {
		publish := func(peer string, most int, prepare func(ctx context.Context, broker string, p publishing, l *ledger) (rig, error)) {
			add("rabbitmq-publish", p.String(), peer, most, func(ctx context.Context, l *ledger) (rig, error) {
				return prepare(ctx, broker, p, l)
			})
		}
		publish(reference, 50_000, prepareBusPublish)
		publish("transport", 50_000, prepareTransportPublish)
		publish("raw", 50_000, prepareRawPublish)
		publish("raw-window", 50_000, prepareRawWindow)
		publish("watermill-amqp", 5_000, prepareWatermillPublish(classic))
		publish("watermill-amqp-quorum", 5_000, prepareWatermillPublish(quorum))
	}
	consume := func(h handling, peer string, most int, prepare func(ctx context.Context, broker string, h handling, l *ledger) (rig, error)) {
		add("rabbitmq-consume", h.name, peer, most, func(ctx context.Context, l *ledger) (rig, error) {
			return prepare(ctx, broker, h, l)
		})
	}

	// At 128 handlers the bus takes in 256 messages, as much as the others prefetch.
	instant := handling{name: "handler=instant", concurrency: 128, prefetch: 256}
	consume(instant, reference, 100_000, prepareBusConsume)
	consume(instant, "transport", 100_000, prepareTransportConsume)
	consume(instant, "raw", 100_000, prepareRawConsume)
	consume(instant, "watermill-amqp", 5_000, prepareWatermillConsume(classic))
	consume(instant, "watermill-amqp-quorum", 5_000, prepareWatermillConsume(quorum))

	slow := handling{name: "handler=10ms/concurrency=64", concurrency: 64, prefetch: 128, takes: 10 * time.Millisecond}
	consume(slow, reference, 20_000, prepareBusConsume)
	consume(slow, "transport", 20_000, prepareTransportConsume)
	consume(slow, "raw", 20_000, prepareRawConsume)
	consume(slow, "watermill-amqp", 300, prepareWatermillConsume(classic))
	consume(slow, "watermill-amqp-quorum", 300, prepareWatermillConsume(quorum))

	failing := handling{name: "failing=1%", concurrency: 128, prefetch: 256, failEvery: 100}
	consume(failing, reference, 100_000, prepareBusConsume)
	consume(failing, "tidings-nofailures", 100_000, func(ctx context.Context, broker string, h handling, l *ledger) (rig, error) {
		h.failEvery = 0
		return prepareBusConsume(ctx, broker, h, l)
	})
	consume(failing, "watermill-amqp", 1_000, prepareWatermillConsume(classic))
	return cases
}

// brokerNotes say of each peer how far it is like for like.
var brokerNotes = map[string]string{
	reference:               "the bus on a quorum queue",
	"transport":             "the bare transport on a quorum queue: what is left when the bus is taken away",
	"raw":                   "amqp091-go, the identical message, a quorum queue, the same calls; each delivery acknowledged by itself",
	"raw-window":            "the same, one caller with up to 256 confirms outstanding, whoever waits for them: the limit",
	"watermill-amqp":        "at its defaults with ConfirmDelivery: a classic queue and a channel for each call, prefetch 1. Not like for like: other kind of queue, and the same attributes without the properties",
	"watermill-amqp-quorum": "the same on a quorum queue: like for like but for the properties",
	"tidings-nofailures":    "the bus without a failure",
}

// publishing says how events are published.
type publishing struct {
	callers int // at a time
	batch   int // events a call
}

func (p publishing) String() string {
	if p.batch == 1 {
		return fmt.Sprintf("callers=%d", p.callers)
	}
	return fmt.Sprintf("callers=%d/batch=%d", p.callers, p.batch)
}

// handling says how a backlog is handled.
type handling struct {
	name        string
	concurrency int // of handlers
	prefetch    int // messages in flight
	takes       time.Duration
	failEvery   int // of so many events one fails, whenever it is tried; 0: none
}

// Those that fail are tried again so often, after so long, and then poisoned.
const (
	retries    = 3
	retryDelay = 100 * time.Millisecond
)

var errFailing = errors.New("it fails")

// handler returns the handler of all peers. An event that fails counts as handled with
// its last attempt. The last tenth of the backlog does not fail: what is measured is how
// many others are held up, not how long the last one waits for its attempts.
func (h handling) handler(l *ledger) func(context.Context, purchase) error {
	var attempts []atomic.Int32
	if h.failEvery > 0 {
		attempts = make([]atomic.Int32, len(l.handledTimes)/h.failEvery+1)
	}
	healthy := len(l.handledTimes) * 9 / 10
	return func(ctx context.Context, e purchase) error {
		if h.takes > 0 {
			select {
			case <-time.After(h.takes):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if h.failEvery > 0 && e.Seq%h.failEvery == 0 && e.Seq < healthy {
			if attempts[e.Seq/h.failEvery].Add(1) == 1+retries {
				l.handled(e)
			}
			return errFailing
		}
		l.handled(e)
		return nil
	}
}

// decoding returns handler for those who decode themselves, which they do as the bus does.
func decoding(handler func(context.Context, purchase) error) func(context.Context, []byte) error {
	return func(ctx context.Context, data []byte) error {
		var e purchase
		if err := (bus.JSON{}).Unmarshal(data, &e); err != nil {
			return err
		}
		return handler(ctx, e)
	}
}

// library is the library on an exchange of its own.
type library struct {
	site      site
	transport transports.Transport
}

// handlerName is the bus's name of its subscription.
const handlerName = "handler"

// subscription is the bus's, for the bare transport.
func (lib *library) subscription(prefetch int) transports.Subscription {
	return transports.Subscription{Name: lib.site.name + "." + handlerName, Topics: []string{purchaseType}, Concurrency: prefetch}
}

// newBus returns a bus of which the name at the broker is the site's.
func (lib *library) newBus() (*bus.Bus, error) {
	return bus.New(lib.transport, bus.Config{Source: "bench", Service: lib.site.name})
}

// openLibrary opens the transport and declares the subscription.
func openLibrary(ctx context.Context, broker string) (*library, error) {
	s, err := newSite(broker)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(broker)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	query := u.Query()
	query.Set("exchange", s.name)
	u.RawQuery = query.Encode()
	transport, err := transports.Open(ctx, u.String())
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	lib := &library{s, transport}
	intake, stop := context.WithCancel(ctx)
	defer stop()
	ch, err := transport.Subscribe(intake, lib.subscription(1))
	if err != nil {
		return nil, errors.Join(err, lib.close())
	}
	stop()
	for range ch { // until the subscription is left alone
	}
	return lib, nil
}

func (lib *library) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return errors.Join(
		lib.transport.(transports.SubscriptionRemover).RemoveSubscription(ctx, lib.subscription(1).Name),
		lib.transport.Close(),
		lib.site.close(),
	)
}

func prepareBusPublish(ctx context.Context, broker string, p publishing, l *ledger) (rig, error) {
	lib, err := openLibrary(ctx, broker)
	if err != nil {
		return rig{}, err
	}
	b, err := lib.newBus()
	if err != nil {
		return rig{}, errors.Join(err, lib.close())
	}
	run := func(ctx context.Context) error {
		return l.publishBatches(ctx, p, func(ctx context.Context, batch []purchase) error {
			if len(batch) == 1 {
				return b.Publish(ctx, batch[0])
			}
			all := make([]any, len(batch))
			for i, e := range batch {
				all[i] = e
			}
			return b.PublishAll(ctx, all...)
		})
	}
	return rig{run: run, close: lib.close}, nil
}

// prepareTransportPublish gives the transport the messages that the bus would.
func prepareTransportPublish(ctx context.Context, broker string, p publishing, l *ledger) (rig, error) {
	lib, err := openLibrary(ctx, broker)
	if err != nil {
		return rig{}, err
	}
	model, err := busMessage(ctx)
	if err != nil {
		return rig{}, errors.Join(err, lib.close())
	}
	run := func(ctx context.Context) error {
		return l.publishBatches(ctx, p, func(ctx context.Context, batch []purchase) error {
			messages, err := like(ctx, model, batch)
			if err != nil {
				return err
			}
			return lib.transport.Publish(purchaseType, messages...)
		})
	}
	return rig{run: run, close: lib.close}, nil
}

// fill puts the ledger's events into the subscription.
func (lib *library) fill(ctx context.Context, broker string, l *ledger) error {
	model, err := wireMessage(ctx, broker)
	if err != nil {
		return err
	}
	return lib.site.fill(ctx, purchaseType, l, model.carrying)
}

func prepareBusConsume(ctx context.Context, broker string, h handling, l *ledger) (rig, error) {
	lib, err := openLibrary(ctx, broker)
	if err != nil {
		return rig{}, err
	}
	if err := lib.fill(ctx, broker, l); err != nil {
		return rig{}, errors.Join(err, lib.close())
	}
	b, err := lib.newBus()
	if err != nil {
		return rig{}, errors.Join(err, lib.close())
	}
	bus.Subscribe(b, handlerName, h.handler(l), bus.Concurrency(h.concurrency), bus.Retry(bus.RetryPolicy{
		Attempts: 1 + retries, MinDelay: retryDelay, MaxDelay: retryDelay, Redeliveries: []time.Duration{},
	}))
	return rig{
		run:   func(context.Context) error { return b.Start(context.Background()) },
		close: func() error { return errors.Join(b.Shutdown(context.Background()), lib.close()) },
	}, nil
}

func prepareTransportConsume(ctx context.Context, broker string, h handling, l *ledger) (rig, error) {
	lib, err := openLibrary(ctx, broker)
	if err != nil {
		return rig{}, err
	}
	if err := lib.fill(ctx, broker, l); err != nil {
		return rig{}, errors.Join(err, lib.close())
	}
	handle := decoding(h.handler(l))
	intake, stop := context.WithCancel(context.Background())
	w := newWorkers(h.concurrency)
	return rig{
		run: func(context.Context) error {
			ch, err := lib.transport.Subscribe(intake, lib.subscription(h.prefetch))
			if err != nil {
				return err
			}
			w.start(func() error {
				for msg := range ch {
					if err := handle(msg.Context(), msg.Payload); err != nil {
						return err
					}
					msg.Ack()
				}
				return nil
			})
			return nil
		},
		close: func() error {
			stop()
			return errors.Join(w.wait(), lib.close())
		},
	}, nil
}

// busMessage returns a message as the bus gives it to a transport.
func busMessage(ctx context.Context) (*message.Message, error) {
	var c captured
	b, err := bus.New(&c, bus.Config{Source: "bench"})
	if err != nil {
		return nil, err
	}
	if err := b.Publish(ctx, newPurchase(0)); err != nil {
		return nil, err
	}
	return c.message, nil
}

// captured is a transport that keeps what was published last.
type captured struct {
	transports.Transport
	message *message.Message
}

func (c *captured) Publish(_ string, messages ...*message.Message) error {
	c.message = messages[0]
	return nil
}

// like returns messages that differ from the model in id and data.
func like(ctx context.Context, model *message.Message, batch []purchase) ([]*message.Message, error) {
	messages := make([]*message.Message, len(batch))
	for i, e := range batch {
		data, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		msg := message.NewMessageWithContext(ctx, events.NewID(), data)
		maps.Copy(msg.Metadata, model.Metadata)
		messages[i] = msg
	}
	return messages, nil
}

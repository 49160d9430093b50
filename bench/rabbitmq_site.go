package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/events"
)

// window is how many confirms the raw client has outstanding: enough to keep a broker
// busy; four times as many only wait longer.
const window = 256

// site is a rig's place at the broker: a name that nobody else has, for an exchange and
// a queue, and a connection for what is not measured.
type site struct {
	name string
	conn *amqp.Connection
}

// poison is the name of the peer's poison queue. The library has its own.
func (s site) poison() string { return s.name + "-poison" }

func newSite(broker string) (site, error) {
	conn, err := amqp.Dial(broker)
	if err != nil {
		return site{}, fmt.Errorf("RabbitMQ: %w", err)
	}
	return site{name: "bench-" + events.NewID(), conn: conn}, nil
}

// close takes the site away from the broker.
func (s site) close() error {
	ch, err := s.conn.Channel()
	if err != nil {
		return errors.Join(err, s.conn.Close())
	}
	// What is not there is no error. The library's queues and exchanges for delays begin with
	// the exchange.
	names := []string{s.name, s.poison()}
	for _, shared := range []string{"retry", "due", "discard", "unrouted"} {
		names = append(names, s.name+"/tidings."+shared)
	}
	for k := range 22 {
		names = append(names, fmt.Sprintf("%s/tidings.delay.%02d", s.name, k))
	}
	for _, name := range names {
		_, errQueue := ch.QueueDelete(name, false, false, false)
		err = errors.Join(err, errQueue, ch.ExchangeDelete(name, false, false))
	}
	return errors.Join(err, s.conn.Close())
}

// queueType is RabbitMQ's x-queue-type.
type queueType string

const (
	classic queueType = "classic"
	quorum  queueType = "quorum"
)

// declare makes a topic exchange and a quorum queue that is bound to it, as the
// library's are.
func (s site) declare() error {
	ch, err := s.conn.Channel()
	if err != nil {
		return err
	}
	defer ch.Close() //nolint:errcheck // what matters was answered
	if err := ch.ExchangeDeclare(s.name, amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(s.name, true, false, false, false, amqp.Table{amqp.QueueTypeArg: string(quorum)}); err != nil {
		return err
	}
	return ch.QueueBind(s.name, purchaseType, s.name, false, nil)
}

// fill publishes the ledger's events to the exchange, confirmed.
func (s site) fill(ctx context.Context, key string, l *ledger, publishing func([]byte) amqp.Publishing) error {
	ch, err := confirming(s.conn)
	if err != nil {
		return err
	}
	defer ch.Close() //nolint:errcheck // all is confirmed
	return publishWindow(ctx, ch, s.name, key, l, publishing, func(purchase) {})
}

func confirming(conn *amqp.Connection) (*amqp.Channel, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		return nil, err
	}
	return ch, nil
}

// publishWindow publishes every event of the ledger, waiting for a confirm only when
// window are outstanding, and calls confirmed with each in turn.
func publishWindow(ctx context.Context, ch *amqp.Channel, exchange, key string, l *ledger,
	publishing func([]byte) amqp.Publishing, confirmed func(purchase),
) error {
	var outstanding [window]*amqp.DeferredConfirmation
	total := len(l.handledTimes)
	for seq := range total + window {
		if oldest := outstanding[seq%window]; oldest != nil {
			if err := awaitConfirm(ctx, oldest); err != nil {
				return err
			}
			confirmed(newPurchase(seq - window))
			outstanding[seq%window] = nil
		}
		if seq >= total {
			continue
		}
		data, err := json.Marshal(newPurchase(seq))
		if err != nil {
			return err
		}
		outstanding[seq%window], err = ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false, publishing(data))
		if err != nil {
			return err
		}
	}
	return nil
}

func awaitConfirm(ctx context.Context, c *amqp.DeferredConfirmation) error {
	if ok, err := c.WaitContext(ctx); err != nil {
		return err
	} else if !ok {
		return errors.New("the broker refused a message")
	}
	return nil
}

// wire is a message as the library has it on the wire.
type wire struct {
	amqp.Publishing
	idHeaders []string // whose value is the event's id
}

// wireMessage publishes an event with the bus and reads it from the broker.
func wireMessage(ctx context.Context, broker string) (w wire, err error) {
	lib, err := openLibrary(ctx, broker)
	if err != nil {
		return wire{}, err
	}
	defer func() { err = errors.Join(err, lib.close()) }()
	ch, err := lib.site.conn.Channel()
	if err != nil {
		return wire{}, err
	}
	queue, err := ch.QueueDeclare("", false, false, true, false, nil)
	if err != nil {
		return wire{}, err
	}
	if err := ch.QueueBind(queue.Name, purchaseType, lib.site.name, false, nil); err != nil {
		return wire{}, err
	}
	b, err := lib.newBus()
	if err != nil {
		return wire{}, err
	}
	if err := b.Publish(ctx, newPurchase(0)); err != nil {
		return wire{}, err
	}
	d, ok, err := ch.Get(queue.Name, true)
	if err != nil || !ok {
		return wire{}, fmt.Errorf("the library's message is not at the broker: %w", err)
	}
	w.Publishing = amqp.Publishing{
		Headers: d.Headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
		DeliveryMode: d.DeliveryMode, Priority: d.Priority, CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo,
		MessageId: d.MessageId, Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId,
	}
	for name, value := range d.Headers {
		if value == d.MessageId {
			w.idHeaders = append(w.idHeaders, name)
		}
	}
	return w, nil
}

// carrying returns the message with other data, and an id of its own.
func (w wire) carrying(data []byte) amqp.Publishing {
	p := w.Publishing
	p.Headers = maps.Clone(w.Headers)
	p.MessageId = events.NewID()
	for _, name := range w.idHeaders {
		p.Headers[name] = p.MessageId
	}
	p.Body = data
	return p
}

// workers are goroutines of a consumer.
type workers struct {
	n    int
	errs chan error // the first fault
	all  sync.WaitGroup
}

func newWorkers(n int) *workers { return &workers{n: n, errs: make(chan error, 1)} }

func (w *workers) start(work func() error) {
	for range w.n {
		w.all.Go(func() {
			if err := work(); err != nil {
				select {
				case w.errs <- err:
				default: // one is enough
				}
			}
		})
	}
}

// wait returns when all have ended.
func (w *workers) wait() error {
	w.all.Wait()
	select {
	case err := <-w.errs:
		return err
	default:
		return nil
	}
}

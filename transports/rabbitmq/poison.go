package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/internal/poisoned"
	"github.com/gotidings/tidings/transports"
)

// Poisoned lists a poison queue, as it was when the iteration began. It takes all messages
// without acknowledging them and gives them back in their order; one caller at a time does
// that, and others wait. The events of the page are held in memory meanwhile, but also a
// small page reads the whole queue. Messages that the broker itself has given up, see the
// package's documentation, are listed with that as their reason.
func (t *Transport) Poisoned(ctx context.Context, subscription string, page transports.PoisonPage) iter.Seq2[transports.Poisoned, error] {
	return func(yield func(transports.Poisoned, error) bool) {
		list, err := t.list(ctx, subscription, page)
		for _, p := range list {
			if !yield(p, nil) {
				return
			}
		}
		if err != nil {
			yield(transports.Poisoned{}, err)
		}
	}
}

func (t *Transport) list(ctx context.Context, subscription string, page transports.PoisonPage) ([]transports.Poisoned, error) {
	l := listing{page: page, begun: page.After == "", seen: make(map[poisoned.Digest]int), events: make(map[poisoned.Digest]*listed)}
	if !l.begun {
		after, err := parseHandle(page.After)
		if err != nil {
			return nil, poisonError(subscription, err)
		}
		l.after = after[0]
	}
	err := t.walk(ctx, subscription, func(d *amqp.Delivery) { l.add(d, t.readPoisoned(d, subscription)) }, nil)
	if err == nil && !l.begun {
		err = poisonError(subscription, fmt.Errorf("the event to continue after: %w", transports.ErrNoPoisoned))
	}
	return l.finish(), err
}

// listing makes a page of events of the messages of a poison queue.
type listing struct {
	page   transports.PoisonPage
	after  sighting
	begun  bool // after was met
	list   []*listed
	seen   map[poisoned.Digest]int     // messages of a digest
	events map[poisoned.Digest]*listed // by the digest of their content
}

// listed is an event. It is nil in listing.events when it is not on the page.
type listed struct {
	transports.Poisoned
	copies []sighting
}

func (l *listing) add(d *amqp.Delivery, p transports.Poisoned) {
	s := sighting{digest: digestOf(d)}
	s.index = l.seen[s.digest]
	l.seen[s.digest]++
	content := poisoned.Of(p.Message)
	event, known := l.events[content]
	if p.Message.UUID == "" || !known {
		event = nil
		if l.begun && (l.page.Limit <= 0 || len(l.list) < l.page.Limit) {
			event = &listed{Poisoned: p}
			l.list = append(l.list, event)
		}
		l.events[content] = event
	}
	if event != nil {
		event.copies = append(event.copies, s)
	}
	l.begun = l.begun || s.digest == l.after.digest && s.index == l.after.index
}

func (l *listing) finish() []transports.Poisoned {
	list := make([]transports.Poisoned, len(l.list))
	for i, event := range l.list {
		for k := range event.copies {
			event.copies[k].of = l.seen[event.copies[k].digest]
		}
		event.Handle = handleOf(event.copies)
		list[i] = event.Poisoned
	}
	return list
}

// readPoisoned reads a message of a poison queue.
func (t *Transport) readPoisoned(d *amqp.Delivery, subscription string) transports.Poisoned {
	msg := decode(d, t.cfg.Exchange)
	death, dead := lastDeath(d.Headers)
	for key := range msg.Metadata {
		if brokers(key) {
			delete(msg.Metadata, key)
		}
	}
	if dead && death.topic != "" && transports.Topic(msg) == "" {
		transports.SetTopic(msg, death.topic)
	}
	p := transports.ReadPoisoned(msg)
	if p.Reason == "" && dead {
		p.Reason = fmt.Sprintf("given up by the broker (%s)", death.reason)
		if death.reason == "delivery_limit" { // and not expired, which a publisher can ask for
			p.Reason += fmt.Sprintf(": delivered more than %d times and settled by nobody", deliveryLimit)
		}
		p.LastFailure, p.Subscription, p.Topic = death.at, subscription, transports.Topic(msg)
		transports.WritePoisoned(p)
	}
	return p
}

// death is an entry of the header x-death: https://www.rabbitmq.com/docs/dlx#effects
type death struct {
	reason, topic string
	at            time.Time
}

func lastDeath(headers amqp.Table) (death, bool) {
	list, _ := headers["x-death"].([]any)
	if len(list) == 0 {
		return death{}, false
	}
	entry, _ := list[0].(amqp.Table)
	d := death{reason: text(entry["reason"])}
	d.at, _ = entry["time"].(time.Time)
	if keys, _ := entry["routing-keys"].([]any); len(keys) > 0 {
		d.topic = text(keys[0])
	}
	return d, true
}

// RequeuePoisoned sends copies of messages, confirmed, to the subscription that failed and
// takes them out of its poison queue afterwards. With no subscription any more the error
// is [transports.ErrNoSubscription], and they stay.
func (t *Transport) RequeuePoisoned(ctx context.Context, subscription string, handles ...transports.PoisonHandle) (int, error) {
	return t.take(ctx, subscription, handles, func(ctx context.Context, chunk []amqp.Delivery) []error {
		messages := make([]outgoing, len(chunk))
		for i := range chunk {
			msg := t.readPoisoned(&chunk[i], subscription).Message
			transports.StripHeaders(msg.Metadata)
			messages[i] = t.copyOf(msg)
			messages[i].key = t.names.queue(subscription)
		}
		return t.store(ctx, messages...)
	})
}

// DiscardPoisoned deletes messages from a poison queue.
func (t *Transport) DiscardPoisoned(ctx context.Context, subscription string, handles ...transports.PoisonHandle) (int, error) {
	return t.take(ctx, subscription, handles, func(_ context.Context, chunk []amqp.Delivery) []error { return make([]error, len(chunk)) })
}

// take removes the messages of the handles from a poison queue, each after f has dealt
// with it, and returns how many events they were.
func (t *Transport) take(ctx context.Context, subscription string, handles []transports.PoisonHandle, f func(context.Context, []amqp.Delivery) []error) (int, error) {
	if t.isClosed() {
		return 0, closedError("rabbitmq: poison queue")
	}
	c, err := newChoice(handles)
	if err != nil {
		return 0, poisonError(subscription, err)
	}
	if len(handles) == 0 {
		return 0, nil
	}
	taken := make(map[transports.PoisonHandle]bool, len(handles))
	err = t.walk(ctx, subscription, c.add, func(w *walker) error {
		for chunk := range slices.Chunk(c.chosen(), walkChunk) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			deliveries := make([]amqp.Delivery, len(chunk))
			for i, m := range chunk {
				deliveries[i] = m.delivery
			}
			var faults []error
			for i, err := range f(ctx, deliveries) {
				if err == nil {
					err = w.ack(chunk[i].delivery.DeliveryTag)
				}
				if err != nil {
					faults = append(faults, err)
					continue
				}
				taken[chunk[i].handle] = true
			}
			if len(faults) > 0 {
				return errors.Join(faults...)
			}
		}
		return nil
	})
	return len(taken), err
}

// choice finds the messages of handles in a poison queue.
type choice struct {
	wanted map[poisoned.Digest][]wanted
	found  map[poisoned.Digest][]amqp.Delivery
}

type wanted struct {
	sighting
	handle transports.PoisonHandle
}

type chosen struct {
	delivery amqp.Delivery
	handle   transports.PoisonHandle
}

func newChoice(handles []transports.PoisonHandle) (*choice, error) {
	c := &choice{wanted: make(map[poisoned.Digest][]wanted), found: make(map[poisoned.Digest][]amqp.Delivery)}
	for _, handle := range handles {
		copies, err := parseHandle(handle)
		if err != nil {
			return nil, err
		}
		for _, s := range copies {
			same := func(w wanted) bool { return w.index == s.index }
			if !slices.ContainsFunc(c.wanted[s.digest], same) { // or it is named twice
				c.wanted[s.digest] = append(c.wanted[s.digest], wanted{s, handle})
			}
		}
	}
	return c, nil
}

func (c *choice) add(d *amqp.Delivery) {
	digest := digestOf(d)
	if _, ok := c.wanted[digest]; ok {
		c.found[digest] = append(c.found[digest], *d)
	}
}

// chosen returns the messages that are there still, in the order of the queue.
func (c *choice) chosen() (all []chosen) {
	for digest, found := range c.found {
		wants := c.wanted[digest]
		slices.SortFunc(wants, func(x, y wanted) int { return x.index - y.index })
		for _, want := range wants {
			if len(found) > 0 && want.present(len(found)) {
				all = append(all, chosen{found[0], want.handle})
				found = found[1:]
			}
		}
	}
	slices.SortFunc(all, func(x, y chosen) int { return int(x.delivery.DeliveryTag) - int(y.delivery.DeliveryTag) }) //nolint:gosec // counts
	return all
}

func poisonError(subscription string, err error) error {
	return fmt.Errorf("rabbitmq: poison queue of %s: %w", subscription, err)
}

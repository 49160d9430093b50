package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Broker holds the queues of all subscriptions. Transports connect to it.
type Broker struct {
	cfg Config

	mu     sync.Mutex        // guards all below, and every queue, consumer and waiter
	queues map[string]*queue // by subscription name; ephemeral ones by their unique name
	order  []*queue          // in the order of their making, so that fan-out is deterministic
	routes map[string]route  // by topic; emptied when a binding changes
	held   int               // messages in all queues: ready, delayed and in flight
	idle   chan struct{}     // closed when held comes to 0; nil while nobody waits for that

	lastPoisoned uint64 // id of the newest message in a poison queue
}

// route is what a topic leads to.
type route struct {
	queues []*queue
	err    error // the topic can't be published to
}

// maxRoutes bounds the memory of topics seen: a publisher that makes up a new
// topic for every message must not fill the memory.
const maxRoutes = 10_000

// NewBroker makes a broker without subscriptions. It returns every fault of cfg
// in one error.
func NewBroker(cfg Config) (*Broker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Broker{
		cfg:    cfg.withDefaults(),
		queues: make(map[string]*queue),
		routes: make(map[string]route),
	}, nil
}

// record is a message as the broker keeps it. It never changes, so that all
// queues share it.
type record struct {
	uuid     string
	topic    string
	metadata map[string]string
	payload  []byte
}

// newRecord makes the record of a message that nobody else will change. It has the topic in
// its metadata, as what is delivered has.
func newRecord(topic string, msg *message.Message) *record {
	transports.SetTopic(msg, topic)
	return &record{uuid: msg.UUID, topic: topic, metadata: msg.Metadata, payload: msg.Payload}
}

// clone copies what the broker keeps of a message that is not its own.
func clone(msg *message.Message) *message.Message {
	return &message.Message{UUID: msg.UUID, Metadata: maps.Clone(msg.Metadata), Payload: slices.Clone(msg.Payload)}
}

// message makes the copy that is delivered. Its metadata is never nil, since middleware
// writes to it.
func (r *record) message() *message.Message {
	msg := message.NewMessage(r.uuid, slices.Clone(r.payload))
	if len(r.metadata) > 0 {
		msg.Metadata = maps.Clone(r.metadata)
	}
	return msg
}

// publish puts a message into every queue that its topic matches, waiting for
// room. from is the subscription whose handler publishes, or nil. closed ends the wait.
func (b *Broker) publish(ctx context.Context, closed <-chan struct{}, from *queue, out transports.Outgoing) error {
	if n := len(out.Message.Payload); n > b.cfg.MaxMessageBytes {
		return transports.TooLarge(n, b.cfg.MaxMessageBytes)
	}
	rec := newRecord(out.Topic, out.Message)

	b.mu.Lock()
	r := b.route(out.Topic)
	if r.err != nil || len(r.queues) == 0 {
		b.mu.Unlock()
		return r.err
	}
	if from == nil {
		if full := bottleneck(r.queues, nil); full != nil {
			w := &waiter{rec: rec, delay: out.Delay, targets: r.queues, admitted: make(chan struct{})}
			w.waitIn(full)
			b.mu.Unlock()
			return b.await(ctx, closed, w)
		}
	}
	for _, q := range r.queues {
		if from != nil {
			from.spill(q)
		}
		q.add(rec, out.Delay)
	}
	b.mu.Unlock()
	return nil
}

// await blocks until w is admitted, and withdraws it when it has to stop before.
func (b *Broker) await(ctx context.Context, closed <-chan struct{}, w *waiter) error {
	var err error
	select {
	case <-w.admitted:
		return nil
	case <-ctx.Done():
		err = fmt.Errorf("wait for room in the queue: %w", context.Cause(ctx))
	case <-closed:
		err = transports.ErrClosed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.queue == nil { // admitted in the meantime: it is in the queues, and that is the truth to tell
		return nil
	}
	w.withdraw()
	return err
}

// route returns the queues for a topic. Called with mu held.
func (b *Broker) route(topic string) route {
	r, ok := b.routes[topic]
	if ok {
		return r
	}
	r.err = transports.ValidateTopic(topic)
	if r.err == nil {
		for _, q := range b.order {
			if q.matches(topic) {
				r.queues = append(r.queues, q)
			}
		}
	}
	if len(b.routes) >= maxRoutes {
		clear(b.routes)
	}
	b.routes[topic] = r
	return r
}

// declare returns the queue of a subscription, made or extended as need be.
// Called with mu held.
func (b *Broker) declare(name string, topics []string) *queue {
	q, ok := b.queues[name]
	if !ok {
		q = newQueue(b, name)
		b.queues[name] = q
		b.order = append(b.order, q)
	}
	for _, topic := range topics {
		if !slices.Contains(q.topics, topic) {
			q.topics = append(q.topics, topic)
			clear(b.routes)
		}
	}
	return q
}

// remove deletes a queue and what is in it. Publishers that wait for it are
// admitted to their other queues. Called with mu held.
func (b *Broker) remove(q *queue) {
	delete(b.queues, q.name)
	b.order = slices.DeleteFunc(b.order, func(o *queue) bool { return o == q })
	clear(b.routes)
	q.remove()
	for _, o := range b.order {
		for _, w := range slices.Clone(o.waiters) {
			if w.bottleneck() != o { // it waited there for the sake of q
				w.withdraw()
				w.admit()
			}
		}
	}
}

// stopTimers lets the broker be collected before all that is delayed is due.
func (b *Broker) stopTimers() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range b.order {
		if q.timer != nil {
			q.timer.Stop()
		}
	}
}

// find returns the queue of a subscription. Called with mu held.
func (b *Broker) find(name string) (*queue, error) {
	q, ok := b.queues[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", transports.ErrNoSubscription, name)
	}
	return q, nil
}

// after is time.AfterFunc with the broker's lock held.
func (b *Broker) after(d time.Duration, fn func()) *time.Timer {
	return time.AfterFunc(d, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		fn()
	})
}

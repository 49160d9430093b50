package memory

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Transport is a connection to a [Broker].
type Transport struct {
	broker     *Broker
	ownsBroker bool            // nobody else can connect to it
	closed     context.Context //nolint:containedctx // the transport's life, not a call's: ends with Close
	close      context.CancelCauseFunc

	mu        sync.Mutex     // guards isClosed against a Subscribe at the same time
	isClosed  bool           // no consumer is added any more
	consumers sync.WaitGroup // running consumers
}

var (
	_ transports.Transport           = (*Transport)(nil)
	_ transports.BatchPublisher      = (*Transport)(nil)
	_ transports.Requeuer            = (*Transport)(nil)
	_ transports.PoisonQueue         = (*Transport)(nil)
	_ transports.SubscriptionRemover = (*Transport)(nil)
	_ transports.Pinger              = (*Transport)(nil)
	_ transports.DepthReporter       = (*Transport)(nil)
	_ transports.SystemNamer         = (*Transport)(nil)
	_ transports.SubscriptionLister  = (*Transport)(nil)
	_ transports.Volatile            = (*Transport)(nil)
	_ transports.NotifiedSubscriber  = (*Transport)(nil)
)

// New makes a transport with a broker of its own. It returns every fault of cfg
// in one error.
func New(cfg Config) (*Transport, error) {
	b, err := NewBroker(cfg)
	if err != nil {
		return nil, err
	}
	t := b.Connect()
	t.ownsBroker = true
	return t, nil
}

// Connect makes a transport on the broker. What one transport publishes, all of
// them deliver; closing one is, for the others, as if its process had died.
func (b *Broker) Connect() *Transport {
	t := &Transport{broker: b}
	t.closed, t.close = context.WithCancelCause(context.Background())
	return t
}

// Volatile marks messages as not outliving the process.
func (t *Transport) Volatile() {}

// MessagingSystem returns "memory".
func (t *Transport) MessagingSystem() string { return "memory" }

// Publish puts messages into the queues of all subscriptions that match topic.
// It blocks while one of them is full, until the context of the first message
// ends.
func (t *Transport) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	batch := make([]transports.Outgoing, len(messages))
	for i, msg := range messages {
		batch[i] = transports.Outgoing{Topic: topic, Message: clone(msg)}
	}
	return t.PublishBatch(messages[0].Context(), batch)
}

// PublishBatch publishes one message after the other. A message that can't be
// published does not hold up the next ones, except that nothing more is sent
// after ctx has ended or the transport was closed.
func (t *Transport) PublishBatch(ctx context.Context, batch []transports.Outgoing) error {
	from := t.broker.publisherQueue(ctx)
	var failures []transports.PublishFailure
	for i, out := range batch {
		out.Message = transports.ForPublish(out.Message)
		if err := t.publishOne(ctx, from, out); err != nil {
			failures = append(failures, transports.PublishFailure{Index: i, Err: err})
		}
	}
	return transports.BatchError(len(batch), failures)
}

func (t *Transport) publishOne(ctx context.Context, from *queue, out transports.Outgoing) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	return t.broker.publish(ctx, t.closed.Done(), from, out)
}

// usable returns why nothing can be done: ErrClosed, or the end of ctx.
func (t *Transport) usable(ctx context.Context) error {
	if t.closed.Err() != nil {
		return transports.ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Subscribe adds a consumer to a subscription, which is made if it does not exist.
func (t *Transport) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	c, err := t.subscribe(ctx, s, false)
	if err != nil {
		return nil, err
	}
	return c.out, nil
}

// SubscribeNotified is Subscribe for a receiver that tells what it has settled.
func (t *Transport) SubscribeNotified(ctx context.Context, s transports.Subscription) (<-chan *message.Message, func(*message.Message), error) {
	c, err := t.subscribe(ctx, s, true)
	if err != nil {
		return nil, nil, err
	}
	return c.out, c.settle, nil
}

func (t *Transport) subscribe(ctx context.Context, s transports.Subscription, told bool) (*consumer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if err := t.usable(ctx); err != nil {
		return nil, err
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isClosed {
		return nil, transports.ErrClosed
	}
	t.consumers.Add(1)
	// Messages live until Close, not until the end of ctx, but with its values.
	delivery, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(t.closed, func() { cancel(context.Cause(t.closed)) })
	end := func() {
		stop()
		cancel(nil)
		t.consumers.Done()
	}
	c, err := t.broker.subscribe(ctx, delivery, s, told, end)
	if err != nil {
		end()
	}
	return c, err
}

// Close ends all consumers of this transport. What they have not acknowledged
// goes back to its queues.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.isClosed = true
	t.mu.Unlock()
	t.close(transports.ErrClosed)
	t.consumers.Wait()
	if t.ownsBroker {
		t.broker.stopTimers()
	}
	return nil
}

// Requeue puts a copy of msg into the queue of one subscription, after delay. It
// takes the place of the delivered message, so it never waits for room.
func (t *Transport) Requeue(ctx context.Context, subscription string, msg *message.Message, delay time.Duration) error {
	return t.withQueue(ctx, subscription, func(q *queue) error {
		q.add(newRecord(transports.Topic(msg), clone(msg)), delay)
		return nil
	})
}

// RemoveSubscription deletes a subscription and all that is in it.
func (t *Transport) RemoveSubscription(ctx context.Context, name string) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	t.broker.mu.Lock()
	defer t.broker.mu.Unlock()
	if q, ok := t.broker.queues[name]; ok {
		t.broker.remove(q)
	}
	return nil
}

// Ping returns [transports.ErrClosed] after Close.
func (t *Transport) Ping(ctx context.Context) error { return t.usable(ctx) }

// Depth counts the messages of a subscription.
func (t *Transport) Depth(ctx context.Context, subscription string) (transports.Depth, error) {
	var d transports.Depth
	err := t.withQueue(ctx, subscription, func(q *queue) error {
		d = transports.Depth{Ready: q.ready.n, Delayed: len(q.delayed), Poisoned: len(q.poisoned)}
		d.InFlight = q.used - d.Ready - d.Delayed
		return nil
	})
	return d, err
}

// withQueue calls fn with the queue of a subscription, under the broker's lock.
func (t *Transport) withQueue(ctx context.Context, subscription string, fn func(*queue) error) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	t.broker.mu.Lock()
	defer t.broker.mu.Unlock()
	q, err := t.broker.find(subscription)
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	return fn(q)
}

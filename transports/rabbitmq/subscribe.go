package rabbitmq

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// Subscribe declares the subscription's queue, its poison queue and its bindings, and
// consumes it with a prefetch of s.Concurrency. Errors are a [*TopologyError] where the
// queue exists with other arguments, and why ctx ended.
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
	if err := t.validate(s); err != nil {
		return nil, fmt.Errorf("rabbitmq: %w", err)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	base, end := context.WithCancelCause(context.WithoutCancel(ctx))
	intake, removed := context.WithCancel(ctx)
	c := &consumer{
		t: t, sub: s, log: t.log.With(slog.String("subscription", s.Name)), out: make(chan *message.Message),
		intake: intake, removed: removed, base: base, end: end, settled: make(chan struct{}, 1),
		told: told, flights: make(map[*message.Message]flight), older: make(olderQueues),
	}
	if err := t.add(c); err != nil {
		removed()
		return nil, err
	}
	first, err := c.begin(ctx)
	if err != nil {
		removed()
		end(nil)
		t.freeName(c)
		t.remove(c)
		return nil, fmt.Errorf("rabbitmq: subscribe %s: %w", s.Name, err)
	}
	go c.run(first) // Close waits for it: t.working
	return c, nil
}

// begin consumes for the first time. The broker keeps the queue of an ephemeral subscription
// for a connection whose process or network is gone, until two heartbeats are missing: so long
// the name may be free soon.
func (c *consumer) begin(ctx context.Context) (_ *reception, err error) {
	c.began = time.Now()
	if c.removals, err = c.t.removals(ctx, c.sub.Name); err != nil {
		return nil, err
	}
	for delay := firstDelay; ; delay = min(2*delay, time.Second) {
		r, err := c.consume(ctx, c.beginsCarefully())
		if !isCode(err, amqp.ResourceLocked) || time.Since(c.began) > 3*c.t.cfg.Heartbeat || !sleep(ctx, delay) {
			return r, err
		}
	}
}

func (t *Transport) validate(s transports.Subscription) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if fault := t.names.fault(s.Name); fault != "" {
		return fmt.Errorf("subscription name %.40q %s", s.Name, fault)
	}
	for _, pattern := range s.Topics {
		if len(pattern) > maxShortString {
			return fmt.Errorf("subscription %q: the topic %.40q… has %d bytes; the protocol allows %d", s.Name, pattern, len(pattern), maxShortString)
		}
	}
	return nil
}

// add makes Close know of a consumer.
func (t *Transport) add(c *consumer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return closedError("rabbitmq: subscribe")
	}
	if c.sub.Ephemeral {
		if _, taken := t.ephemeral[c.sub.Name]; taken {
			return fmt.Errorf("rabbitmq: the ephemeral subscription %q exists already", c.sub.Name)
		}
		t.ephemeral[c.sub.Name] = struct{}{}
	}
	t.consumers[c] = struct{}{}
	t.working.Add(1)
	return nil
}

func (t *Transport) remove(c *consumer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.consumers, c)
	t.working.Done()
}

// freeName lets others take the name of an ephemeral subscription. It comes before the
// channel is closed, since who sees that may subscribe again.
func (t *Transport) freeName(c *consumer) {
	if !c.sub.Ephemeral {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ephemeral, c.sub.Name)
}

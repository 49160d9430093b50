package watermill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// maxFaults bounds what Close has to say of consumers that could not be ended.
const maxFaults = 16

// Subscribe subscribes to each topic of s and merges what comes. What the Watermill
// subscriber can't do is refused with [transports.ErrUnsupported], see [Config].
func (t *Transport) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if err := t.usable(ctx); err != nil {
		return nil, err
	}
	if t.subscriber == nil && t.cfg.Subscriber == nil {
		return nil, fmt.Errorf("subscribe without a subscriber: %w", transports.ErrUnsupported)
	}
	topics, err := t.cfg.topicsOf(s)
	if err != nil {
		return nil, err
	}
	var out <-chan *message.Message
	err = t.call(ctx, func() error {
		c, err := t.add(ctx, s, topics)
		if err != nil {
			return err
		}
		out = c.out
		return c.start(s)
	})
	if err != nil {
		// It may be a consequence of the end of the one or the other. The consumer of a
		// call that was left behind ends by itself: its intake has ended with them.
		return nil, cmp.Or(t.usable(ctx), err)
	}
	return out, nil
}

// add makes a consumer, to be started.
func (t *Transport) add(ctx context.Context, s transports.Subscription, topics []string) (*consumer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isClosed {
		return nil, transports.ErrClosed
	}
	if err := t.cfg.admit(s, topics, t.live); err != nil {
		return nil, err
	}
	c := &consumer{
		transport: t, name: s.Name, ephemeral: s.Ephemeral, ordered: s.Ordered, topics: topics,
		subscriber: t.subscriber, owned: t.cfg.Subscriber != nil,
		out:   make(chan *message.Message),
		slots: make(chan struct{}, s.Concurrency), // takes no room, however many
	}
	t.live = append(t.live, c)
	t.consumers.Add(1)

	// Messages live until Close, not until the end of ctx, but with its values.
	delivery, end := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(t.closed, func() { end(context.Cause(t.closed)) })
	c.delivery = delivery
	c.intake, c.stopIntake = context.WithCancel(ctx)
	unhookIntake := context.AfterFunc(delivery, c.stopIntake)
	c.end = func() {
		c.stopIntake()
		unhookIntake()
		unhook()
		end(nil)
		t.consumers.Done()
	}
	return c, nil
}

// remove forgets a consumer whose subscriptions have ended.
func (t *Transport) remove(c *consumer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live = slices.DeleteFunc(t.live, func(o *consumer) bool { return o == c })
}

// fault keeps an error for Close to return.
func (t *Transport) fault(err error) {
	if err == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.faults) < maxFaults {
		t.faults = append(t.faults, err)
	}
}

// start subscribes and begins to deliver.
func (c *consumer) start(s transports.Subscription) error {
	// Until start returns, the end of ctx and Close end what it waits for; from then on
	// only release does.
	sources, endSources := context.WithCancel(context.WithoutCancel(c.delivery))
	c.endSources = endSources
	unhook := context.AfterFunc(c.intake, endSources)
	err := recovered(func() error { return c.subscribe(sources, s) })
	unhook()
	if err != nil {
		// Nobody has the channel yet.
		c.release()
		c.transport.remove(c)
		c.end()
		return fmt.Errorf("watermill: subscribe: %w", err)
	}
	go func() {
		c.run()
		c.end()
	}()
	return nil
}

func (c *consumer) subscribe(ctx context.Context, s transports.Subscription) error {
	if c.owned {
		subscriber, err := c.transport.cfg.Subscriber(s)
		if err == nil && subscriber == nil {
			err = errors.New("Config.Subscriber returned none")
		}
		if err != nil {
			return err
		}
		c.subscriber = subscriber
	}
	consumers := min(c.transport.cfg.MaxConsumers, cap(c.slots))
	if s.Ordered {
		consumers = 1
	}
	for _, topic := range c.topics {
		for range consumers {
			ch, err := c.subscriber.Subscribe(ctx, topic)
			if err != nil {
				return fmt.Errorf("topic %q: %w", topic, err)
			}
			c.sources = append(c.sources, source{topic, ch})
		}
	}
	return nil
}

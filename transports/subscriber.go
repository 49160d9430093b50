package transports

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
)

// SubscriberConfig configures [AsSubscriber].
type SubscriberConfig struct {
	// Group begins the names of the subscriptions: that of a topic is
	// Group + "." + topic, which is the name to give to middleware. It must be set.
	Group string

	// Concurrency is the most messages of a Subscribe delivered and not yet
	// settled. 0 means 1, as with Watermill's own subscribers.
	Concurrency int

	// Ordered and Ephemeral are those of [Subscription]. Each Subscribe of an
	// ephemeral one has a subscription of its own, with a UUID after its name.
	Ordered, Ephemeral bool

	// DrainTimeout is how long Close waits for what is in flight to be settled
	// before it nacks it. 0 means not at all, as with Watermill's own subscribers.
	// A router waits for its handlers only after it has closed its subscribers, so
	// one that is to end without redeliveries needs it.
	DrainTimeout time.Duration
}

func (c SubscriberConfig) validate() error {
	var faults []error
	if c.Group == "" {
		faults = append(faults, errors.New("the field Group is empty"))
	}
	if c.Concurrency < 0 {
		faults = append(faults, fmt.Errorf("the field Concurrency is %d; it takes at least 1, or 0 for the default", c.Concurrency))
	}
	if c.DrainTimeout < 0 {
		faults = append(faults, fmt.Errorf("the field DrainTimeout is %s; it can't be negative", c.DrainTimeout))
	}
	return errors.Join(faults...)
}

// Subscriber is a Watermill subscriber on a transport, made by [AsSubscriber]. Its
// methods may be called concurrently.
type Subscriber struct {
	transport Transport
	cfg       SubscriberConfig

	closing    context.Context //nolint:containedctx // the subscriber's life, not a call's: ends when Close begins
	stopIntake context.CancelFunc
	closed     context.Context //nolint:containedctx // the same: ends when what is in flight is given up
	giveUp     context.CancelCauseFunc

	mu        sync.Mutex     // guards isClosed against a Subscribe at the same time
	isClosed  bool           // no consumer is added any more
	consumers sync.WaitGroup // channels that are open
}

var (
	_ message.Subscriber           = (*Subscriber)(nil)
	_ message.SubscribeInitializer = (*Subscriber)(nil)
	_ message.Publisher            = Transport(nil)
)

// AsSubscriber makes a Watermill subscriber, for a plain message.Router, of a
// transport, which stays open when the subscriber is closed. It returns every
// fault of cfg in one error.
func AsSubscriber(t Transport, cfg SubscriberConfig) (*Subscriber, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 1
	}
	s := &Subscriber{transport: t, cfg: cfg}
	s.closing, s.stopIntake = context.WithCancel(context.Background())
	s.closed, s.giveUp = context.WithCancelCause(context.Background())
	return s, nil
}

// Subscribe returns the channel of a topic's messages. The topic may be a pattern,
// see [Match].
//
// A message's context has ctx's values and ends when the message is settled. When
// ctx ends, nothing more is delivered; what is in flight can still be settled, and
// the channel is closed when the last of it is. The error is [ErrClosed] after
// Close.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	return s.subscribe(ctx, s.subscription(topic))
}

// SubscribeInitialize makes the subscription of a topic, so that messages wait in
// it for the first Subscribe. It does nothing for ephemeral ones, where none do.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	if s.cfg.Ephemeral {
		return nil
	}
	ctx, cancel := context.WithCancel(s.closing)
	defer cancel()
	ch, err := s.subscribe(ctx, s.subscription(topic))
	if err != nil {
		return err
	}
	cancel()
	for msg := range ch {
		msg.Nack()
	}
	return nil
}

func (s *Subscriber) subscription(topic string) Subscription {
	sub := Subscription{
		Name: s.cfg.Group + "." + topic, Topics: []string{topic}, Concurrency: s.cfg.Concurrency,
		Ordered: s.cfg.Ordered, Ephemeral: s.cfg.Ephemeral,
	}
	if sub.Ephemeral {
		sub.Name += "." + uuid.NewString()
	}
	return sub
}

func (s *Subscriber) subscribe(ctx context.Context, sub Subscription) (<-chan *message.Message, error) {
	s.mu.Lock()
	if s.isClosed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	s.consumers.Add(1)
	s.mu.Unlock()

	intake, stop := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(s.closing, func() { stop(ErrClosed) })
	end := func() {
		unhook()
		stop(nil)
		s.consumers.Done()
	}
	in, err := s.transport.Subscribe(intake, sub)
	if err != nil {
		end()
		return nil, err
	}
	out := make(chan *message.Message)
	go func() {
		defer end()
		s.deliver(intake, in, out)
	}()
	return out, nil
}

// deliver hands messages on until the transport closes in, which it does when
// intake has ended and all are settled; so it goes on to take what it only nacks.
func (s *Subscriber) deliver(intake context.Context, in <-chan *message.Message, out chan<- *message.Message) {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer close(out)
	for msg := range in {
		ctx, cancel := context.WithCancelCause(msg.Context())
		msg.SetContext(ctx)
		watchers.Go(func() { s.watch(msg, ctx.Done(), cancel) })
		if intake.Err() != nil {
			msg.Nack()
			continue
		}
		select {
		case out <- msg:
		case <-intake.Done():
			msg.Nack()
		}
	}
}

// watch ends the message's context when it is settled, and nacks it when Close
// gives it up. The transport ends the context when it is closed itself.
func (s *Subscriber) watch(msg *message.Message, ended <-chan struct{}, cancel context.CancelCauseFunc) {
	defer cancel(nil)
	select {
	case <-msg.Acked():
	case <-msg.Nacked():
	case <-ended:
	case <-s.closed.Done():
		cancel(context.Cause(s.closed))
		msg.Nack() // without effect where the receiver came first
	}
}

// Close ends every subscription: nothing more is delivered, and what is not settled
// within the DrainTimeout is nacked, its context ending with [ErrClosed] as the
// cause. When it returns, the channels are closed. It may be called more than once
// and concurrently.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	s.isClosed = true
	s.mu.Unlock()
	s.stopIntake()
	if s.cfg.DrainTimeout > 0 {
		s.drain()
	}
	s.giveUp(ErrClosed)
	s.consumers.Wait()
	return nil
}

// drain waits for the receivers, for so long.
func (s *Subscriber) drain() {
	drained := make(chan struct{})
	go func() { // ends with the consumers, for which Close waits
		s.consumers.Wait()
		close(drained)
	}()
	timer := time.NewTimer(s.cfg.DrainTimeout)
	defer timer.Stop()
	select {
	case <-drained:
	case <-s.closed.Done(): // by another Close
	case <-timer.C:
	}
}

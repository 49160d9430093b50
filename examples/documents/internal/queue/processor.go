package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

var (
	// ErrLost is why a processor has ended by itself: the transport has closed its
	// subscription.
	ErrLost = errors.New("queue: the transport has closed the subscription")

	// ErrStarted is returned by a second Start, and by one after Stop.
	ErrStarted = errors.New("queue: the processor was started before")

	errStopped = errors.New("queue: the processor is stopped")
)

// Processor takes the messages of a queue. Its methods may be called concurrently.
type Processor[T any] struct {
	cfg       Config[T]
	transport Transport
	handle    message.HandlerFunc // with all that is around it

	stopping chan struct{} // closed by the first Stop
	done     chan struct{} // closed when everything is settled

	mu       sync.Mutex // guards what follows
	started  bool
	intake   context.CancelFunc      // ends it
	hardStop context.CancelCauseFunc // ends the contexts of handlers
	stopped  bool
	err      error // of Wait
}

// New makes a processor. The error joins all faults of cfg.
func New[T any](cfg Config[T]) (*Processor[T], error) {
	cfg = cfg.withDefaults()
	transport, err := cfg.validate()
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	p := &Processor[T]{cfg: cfg, transport: transport, stopping: make(chan struct{}), done: make(chan struct{})}
	p.handle = p.stack(p.settle)
	return p, nil
}

// stack puts the library's middleware around the handler.
func (p *Processor[T]) stack(h message.HandlerFunc) message.HandlerFunc {
	chain := []message.HandlerMiddleware{ // outermost first
		middleware.Recover,
		middleware.Logging(middleware.LoggingConfig{Subscription: p.cfg.Name, Logger: p.cfg.Logger}),
		middleware.Correlation(p.cfg.Name),
		middleware.Poison(middleware.PoisonConfig{
			Subscription: p.cfg.Name, Queue: p.transport, Stopping: p.stopping,
			OnPoison: func(msg *message.Message, err error) { p.cfg.OnDeadLetter(deadLettered(msg, err)) },
		}),
		middleware.Redelivery(middleware.RedeliveryConfig{
			Subscription: p.cfg.Name, Requeuer: p.transport, Delays: p.cfg.delays(), Stopping: p.stopping,
		}),
	}
	chain = append(chain, p.cfg.Middleware...)
	for _, m := range slices.Backward(chain) {
		h = m(h)
	}
	return h
}

// settle decodes a message and calls the handler. The error is what becomes of it.
func (p *Processor[T]) settle(msg *message.Message) ([]*message.Message, error) {
	body, err := p.cfg.Decode(msg.Payload)
	if err != nil {
		return nil, DeadLetter(ReasonUndecodable, err.Error()).verdict(false)
	}
	d := Delivery[T]{ID: msg.UUID, Body: body, Count: transports.Attempts(msg) + 1, Metadata: msg.Metadata}
	d.Last = d.Count >= p.cfg.MaxDeliveries
	s := p.call(msg.Context(), d)
	if s.uncounted {
		p.pause(msg.Context())
	}
	return nil, s.verdict(d.Last)
}

// pause waits for the configured delay, or until the processor stops.
func (p *Processor[T]) pause(ctx context.Context) {
	timer := time.NewTimer(p.cfg.RetryDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.stopping:
	case <-ctx.Done():
	}
}

// call calls the handler. One that panics has abandoned the message.
func (p *Processor[T]) call(ctx context.Context, d Delivery[T]) (s Settlement) {
	defer func() {
		if v := recover(); v != nil {
			s = Abandon(fmt.Errorf("panic: %v", v))
		}
	}()
	return p.cfg.Handle(ctx, d)
}

// Start declares the queue and begins to take messages. When it returns, the queue exists:
// what is published from now on is processed.
func (p *Processor[T]) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started || p.stopped {
		return ErrStarted
	}
	base := context.WithoutCancel(ctx)
	intake, stopIntake := context.WithCancel(base)
	messages, err := p.transport.Subscribe(intake, p.cfg.subscription())
	if err != nil {
		stopIntake()
		return fmt.Errorf("queue %s: %w", p.cfg.Name, err)
	}
	p.started, p.intake = true, stopIntake
	hard, hardStop := context.WithCancelCause(base)
	p.hardStop = hardStop
	go p.run(hard, messages)
	return nil
}

// run handles messages until their channel is closed, which is when all are settled. The
// transport delivers no more than Concurrency at a time.
func (p *Processor[T]) run(hard context.Context, messages <-chan *message.Message) {
	defer close(p.done)
	var handlers sync.WaitGroup
	for msg := range messages {
		handlers.Go(func() { p.one(hard, msg) })
	}
	handlers.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		p.err = fmt.Errorf("%w %s", ErrLost, p.cfg.Name)
	}
	p.intake()
	p.hardStop(errStopped)
}

// one handles a message. What is not settled goes back.
func (p *Processor[T]) one(hard context.Context, msg *message.Message) {
	ctx, cancel := context.WithCancelCause(msg.Context())
	defer cancel(nil)
	defer context.AfterFunc(hard, func() { cancel(context.Cause(hard)) })()
	msg.SetContext(ctx)
	if _, err := p.handle(msg); err != nil {
		msg.Nack()
		return
	}
	msg.Ack()
}

// Stop ends the processor: no message begins, those that are handled are settled, and the
// rest is left to others. When ctx ends first, the contexts of handlers end too, what they
// then do not complete goes back, and Stop returns the cause without waiting for that: Wait
// does. It may be called more than once.
func (p *Processor[T]) Stop(ctx context.Context) error {
	p.mu.Lock()
	if !p.stopped {
		p.stopped = true
		close(p.stopping)
		if !p.started {
			close(p.done)
		} else {
			p.intake()
		}
	}
	hardStop := p.hardStop
	p.mu.Unlock()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		if hardStop != nil { // it was started
			hardStop(errStopped)
		}
		return fmt.Errorf("queue %s: handlers are interrupted: %w", p.cfg.Name, context.Cause(ctx))
	}
}

// Wait returns when the processor has ended: nil after Stop, else [ErrLost].
func (p *Processor[T]) Wait() error {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

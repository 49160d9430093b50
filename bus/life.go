package bus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// killGrace is how long handlers may take after their contexts have ended. One
// that takes longer does not heed its context, and can't be waited for.
const killGrace = 5 * time.Second

// life is the machinery of a started bus.
//
//	Start ──► subscriptions' channels ──► router ──► handlers
//	stop:  stopping closed, intake ends ──► handlers in flight finish ──► done
//	       └─ ShutdownTimeout ──► handlers' context ends ─ killGrace ──► done
type life struct {
	stopping chan struct{} // closed when the shutdown begins
	done     chan struct{} // closed when it is over

	stopIntake context.CancelFunc      // of the transport's subscriptions; guarded by Bus.mu
	hardStop   context.CancelCauseFunc // of the handlers' context; guarded by Bus.mu
	err        error                   // what Wait returns; guarded by Bus.mu
}

func newLife() life {
	return life{stopping: make(chan struct{}), done: make(chan struct{})}
}

// Start declares every subscription at the transport and begins to handle events.
// When it returns nil, whatever is published reaches its subscriptions. ctx bounds
// the start only; handlers' contexts have its values.
//
// It refuses a configuration that would lose or double events; the error joins
// all faults. After an error the bus is not started, and Start can be called again.
func (b *Bus) Start(ctx context.Context) error {
	intake, runCtx, err := b.beginStart(ctx)
	if err != nil {
		return err
	}
	// The transport's Subscribe has one context for the call and for the intake, so
	// the end of ctx is passed on for as long as the calls last.
	unhook := context.AfterFunc(ctx, b.run.stopIntake)
	l, err := b.subscribe(intake, runCtx)
	if !unhook() && err == nil {
		err = fmt.Errorf("bus: start: %w", context.Cause(ctx))
	}

	if err = b.endStart(l, err); err != nil {
		b.run.stopIntake()
		b.run.hardStop(err)
		l.abandon()
		if errors.Is(err, ErrClosed) {
			b.quiet()
		}
	}
	return err
}

// endStart makes the bus run, or not.
func (b *Bus) endStart(l launch, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == stopping: // Shutdown came in between
		b.end(nil)
		return ErrClosed
	case err != nil:
		b.state = configuring
		return err
	}
	b.state = running
	b.supervise(l)
	return nil
}

// launch is what supervise starts.
type launch struct {
	router   *message.Router
	handlers []*message.Handler
	intakes  []intake // of the transport's subscriptions
}

// abandon gives back what was delivered already and waits for the subscriptions to
// end, so that nothing of them is left when Start is called again.
func (l launch) abandon() {
	for _, in := range l.intakes {
		for msg := range in.messages {
			in.giveBack(msg)
		}
	}
}

// beginStart checks whether the bus can start and makes the contexts: of the
// intake, and of the handlers.
func (b *Bus) beginStart(ctx context.Context) (intake, runCtx context.Context, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == ended:
		return nil, nil, ErrClosed
	case b.state != configuring:
		return nil, nil, ErrStarted
	}
	if err := b.check(); err != nil {
		return nil, nil, err
	}
	b.state = starting
	base := context.WithoutCancel(ctx)
	intake, b.run.stopIntake = context.WithCancel(base)
	runCtx, b.run.hardStop = context.WithCancelCause(base)
	return intake, runCtx, nil
}

// subscribe declares the subscriptions and gives them to a router.
func (b *Bus) subscribe(intakeCtx, runCtx context.Context) (l launch, err error) {
	// The router is not to give up waiting for handlers: drain decides that.
	l.router, err = message.NewRouter(message.RouterConfig{CloseTimeout: math.MaxInt64}, routerLog{b.log})
	if err != nil {
		return l, fmt.Errorf("bus: router: %w", err)
	}
	for _, s := range b.subs {
		s.interrupted(transports.Interruption{}) // of an earlier Start
		in, err := b.takeIn(intakeCtx, transports.Subscription{
			Name:        s.fullName,
			Topics:      s.patterns,
			Concurrency: s.settings.inFlight(),
			Ordered:     s.settings.ordered,
			Ephemeral:   s.settings.ephemeral,

			OnInterruption: s.interrupted,
		})
		if err != nil {
			return l, fmt.Errorf("bus: subscribe %s: %w", s.fullName, err)
		}
		if s.settings.ordered {
			in.messages = formLanes(intakeCtx, in)
		}
		l.intakes = append(l.intakes, in)
		handler := l.router.AddHandler(s.fullName, "", declared{in.messages}, "", lost{s}, func(msg *message.Message) ([]*message.Message, error) {
			return nil, s.handle(msg.Context(), msg.Payload)
		})
		handler.AddMiddleware(onLargeStack, in.settle)
		handler.AddMiddleware(s.stack(runCtx, b.run.stopping)...)
		l.handlers = append(l.handlers, handler)
	}
	return l, nil
}

// declared is the Watermill subscriber of a subscription that is declared already.
// It is not the transport's own, so that the router can't close that.
type declared struct{ messages <-chan *message.Message }

func (d declared) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	return d.messages, nil
}

func (d declared) Close() error { return nil }

// String returns the name that the router gives to the context of every message, none:
// it would be of no use to anybody, and cost two allocations. So does that of lost.
func (d declared) String() string { return "" }

// lost is the publisher of a subscription, which publishes nothing. The router closes it
// when the channel of the subscription has ended, at once: handlers can still run then, if
// it was the transport that ended, and Handler.Stopped may wait for them.
type lost struct{ s *Subscription }

func (l lost) Publish(string, ...*message.Message) error { return errOutput }

func (l lost) Close() error {
	l.s.bus.beginStop(&SubscriptionLostError{Subscription: l.s.fullName})
	return nil
}

func (l lost) String() string { return "" }

// supervise runs the router until all subscriptions have ended and everything
// delivered is settled: transports close a channel only then. Called with mu held.
func (b *Bus) supervise(l launch) {
	settled := make(chan error, 1)
	if len(l.handlers) == 0 {
		settled <- nil // nothing to wait for, and a router without handlers would never end
	} else {
		// The router's context does not end: that would cancel handlers in flight.
		go func() { settled <- l.router.Run(context.Background()) }()
		<-l.router.Running()
	}
	go func() {
		<-b.run.stopping
		err := b.drain(settled, l.handlers)
		b.quiet()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.end(err)
	}()
}

// drain waits for handlers in flight, at first with patience.
func (b *Bus) drain(settled <-chan error, handlers []*message.Handler) error {
	patience := time.NewTimer(b.cfg.ShutdownTimeout)
	defer patience.Stop()
	select {
	case err := <-settled:
		return err
	case <-patience.C:
	}
	b.log.Warn("handlers are interrupted: they have not finished in time for the shutdown")
	b.run.hardStop(ErrShutdown)
	patience.Reset(killGrace)
	select {
	case err := <-settled:
		return err
	case <-patience.C:
	}
	late := &ShutdownTimeoutError{}
	for i, h := range handlers {
		select {
		case <-h.Stopped():
		default:
			late.Subscriptions = append(late.Subscriptions, b.subs[i].fullName)
		}
	}
	return late
}

// beginStop begins the shutdown, for a reason or, with nil, because it was asked
// for. It does nothing when it has begun.
func (b *Bus) beginStop(reason error) {
	defer func() {
		if b.unstarted() {
			b.quiet()
		}
	}()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case configuring:
		close(b.run.stopping)
		b.end(reason)
	case starting, running:
		b.state = stopping
		b.run.err = reason
		close(b.run.stopping)
		b.run.stopIntake()
	}
}

// unstarted reports whether the bus has ended without having been started.
func (b *Bus) unstarted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state == ended && b.run.hardStop == nil
}

// end ends the bus. Called with mu held.
func (b *Bus) end(err error) {
	b.state = ended
	b.run.err = errors.Join(b.run.err, err)
	if b.run.hardStop != nil {
		b.run.hardStop(ErrShutdown)
	}
	close(b.run.done)
}

// quiet lets go of what watches the bus, once. It is called without mu, since others' code
// is called here.
func (b *Bus) quiet() {
	b.quietly.Do(func() {
		for _, p := range b.probes {
			if p.Ended != nil {
				p.Ended()
			}
		}
		b.lines.Close()
	})
}

// Shutdown ends the bus in two phases. First the intake stops, and handlers in
// flight finish; they can still publish. After Config.ShutdownTimeout their
// contexts are cancelled with [ErrShutdown] as the cause, and what they then do not
// finish goes back to its subscription.
//
// It returns when that is over, with Wait's error, or when ctx ends, with its
// cause; the shutdown goes on, and Shutdown can be called again. A handler must not
// call it: it would wait for itself.
func (b *Bus) Shutdown(ctx context.Context) error {
	b.beginStop(nil)
	select {
	case <-b.run.done:
		return b.Wait()
	case <-ctx.Done():
		return fmt.Errorf("bus: shutdown goes on: %w", context.Cause(ctx))
	}
}

// Wait returns when the bus has ended: nil after a clean shutdown, a
// [*ShutdownTimeoutError] when handlers did not finish, a [*SubscriptionLostError]
// when the bus ended because the transport closed a subscription.
func (b *Bus) Wait() error {
	<-b.run.done
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.run.err
}

// Run is Start, Wait and, when ctx ends, Shutdown. It returns Start's error or
// Wait's, which is nil after ctx ended and all was finished.
func (b *Bus) Run(ctx context.Context) error {
	if err := b.Start(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		b.beginStop(nil)
	case <-b.run.done:
	}
	return b.Wait()
}

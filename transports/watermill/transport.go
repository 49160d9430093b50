package watermill

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Transport is a Watermill publisher and subscriber behind the seam.
type Transport struct {
	publisher  message.Publisher
	subscriber message.Subscriber // nil when Config.Subscriber makes them
	cfg        Config

	closed   context.Context //nolint:containedctx // the transport's life, not a call's: ends with Close
	close    context.CancelCauseFunc
	closeAll func() error // ends everything, once

	publishing chan struct{} // room for each Publish that runs in the publisher

	mu        sync.Mutex     // guards the fields below
	isClosed  bool           // no call and no consumer is added any more
	live      []*consumer    // that have not ended
	faults    []error        // of consumers that could not be ended
	calls     sync.WaitGroup // goroutines in Watermill's Publish and Subscribe
	consumers sync.WaitGroup // running consumers
}

var _ transports.Transport = (*Transport)(nil)

// New makes a transport of a Watermill publisher and subscriber, of which one may be
// nil: then the transport can't publish, or not subscribe. Close closes both. It
// returns every fault of cfg in one error.
func New(publisher message.Publisher, subscriber message.Subscriber, cfg Config) (*Transport, error) {
	if err := cfg.validate(publisher, subscriber); err != nil {
		return nil, fmt.Errorf("watermill: %w", err)
	}
	t := &Transport{
		publisher: publisher, subscriber: subscriber, cfg: cfg.withDefaults(),
		publishing: make(chan struct{}, maxPublishing),
	}
	t.closed, t.close = context.WithCancelCause(context.Background())
	t.closeAll = sync.OnceValue(t.shutDown)
	return t, nil
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

// call runs fn, which calls Watermill, and returns its error, or earlier when ctx ends
// or the transport is closed: fn then goes on in a goroutine that Close waits for.
func (t *Transport) call(ctx context.Context, fn func() error) error {
	t.mu.Lock()
	if t.isClosed {
		t.mu.Unlock()
		return transports.ErrClosed
	}
	t.calls.Add(1)
	t.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		defer t.calls.Done()
		done <- recovered(fn)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.closed.Done():
		return transports.ErrClosed
	}
}

// recovered makes an error of a panic. In the caller's goroutine its own recover would
// have caught that; here it would end the process.
func recovered(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("watermill: panic: %v", r)
		}
	}()
	return fn()
}

// Close ends all consumers: what they have not acknowledged goes back with a Nack.
// Then it closes Watermill's subscriber and publisher. Its error joins theirs, and says
// what has not ended within Config.CloseTimeout and was left behind.
func (t *Transport) Close() error { return t.closeAll() }

func (t *Transport) shutDown() error {
	t.mu.Lock()
	t.isClosed = true
	t.mu.Unlock()
	t.close(transports.ErrClosed)
	t.consumers.Wait()

	// Publishers are not always made to be closed while they publish. One that hangs may
	// need just that, though.
	inFlight := make(chan struct{})
	go func() {
		t.calls.Wait()
		close(inFlight)
	}()
	select {
	case <-inFlight:
	case <-time.After(min(time.Second, t.cfg.CloseTimeout)):
	}

	t.mu.Lock()
	faults := slices.Clone(t.faults)
	t.mu.Unlock()
	if !t.cfg.LeaveOpen {
		if t.subscriber != nil {
			faults = append(faults, t.within("the subscriber's Close", t.subscriber.Close))
		}
		if t.publisher != nil && !same(t.publisher, t.subscriber) {
			faults = append(faults, t.within("the publisher's Close", t.publisher.Close))
		}
	}
	faults = append(faults, t.within("a call of Publish or Subscribe", func() error {
		<-inFlight
		return nil
	}))
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("watermill: close: %w", err)
	}
	return nil
}

// within runs fn, and does not wait for it longer than CloseTimeout.
func (t *Transport) within(what string, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- recovered(fn) }()
	timer := time.NewTimer(t.cfg.CloseTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return t.overdue(what)
	}
}

func (t *Transport) overdue(what string) error {
	return fmt.Errorf("%s has not ended within %s and is left behind", what, t.cfg.CloseTimeout)
}

// same reports whether the two are one object, as a GoChannel is.
func same(p message.Publisher, s message.Subscriber) bool {
	return reflect.ValueOf(p).Comparable() && any(p) == any(s)
}

package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/gotidings/tidings/transports"
)

// Pause stops the handling of a subscription's events in this process until
// [Bus.Resume]: handlers that run finish, events that were already delivered are
// held, and none is counted or lost. name is the subscription's name in this bus.
func (b *Bus) Pause(name string) error {
	s, err := b.subscription(name)
	if err != nil {
		return err
	}
	s.pause("paused by the operator")
	return nil
}

// Resume ends a [Bus.Pause] and the pause of [PauseOnPoison]. It does nothing
// when the subscription is not paused.
func (b *Bus) Resume(name string) error {
	s, err := b.subscription(name)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.release != nil {
		s.release()
		s.release = nil
	}
	return nil
}

// PauseReasons returns why a subscription stands still; none when it does not. A
// subscription also pauses by itself while its poison queue can't be written.
func (b *Bus) PauseReasons(name string) ([]string, error) {
	s, err := b.subscription(name)
	if err != nil {
		return nil, err
	}
	return s.gate.Reasons(), nil
}

// Ready returns nil while the bus works: it is started and all of its subscriptions
// run, or it has none and only publishes, which takes no Start. Otherwise it returns
// [ErrNotRunning], before the end of Start, its faults of configuration, or [ErrClosed],
// once a shutdown has begun; that is joined with a [*SubscriptionLostError] when the loss of a subscription is the
// reason. A subscription that has had no consumer for 5 s is an [*InterruptedError]; all of them are
// joined. Transports of package watermill don't tell. A subscription that is paused runs,
// see [Bus.PauseReasons].
func (b *Bus) Ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == stopping || b.state == ended:
		return errors.Join(ErrClosed, b.run.err)
	case len(b.faults) > 0:
		return b.faultError()
	case len(b.subs) > 0 && b.state != running:
		return ErrNotRunning
	case b.state != running:
		return nil
	}
	var faults []error
	for _, s := range b.subs {
		if err := s.interruption.fault(s.fullName); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// Subscriptions returns the names that the subscriptions have in this bus, in the order
// of their registration.
func (b *Bus) Subscriptions() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	names := make([]string, len(b.subs))
	for i, s := range b.subs {
		names[i] = s.name
	}
	return names
}

func (s *Subscription) pause(reason string) {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	if s.release == nil {
		s.release = s.gate.Hold(reason)
	}
}

func (b *Bus) subscription(name string) (*Subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.byName[name]
	if !ok {
		return nil, fmt.Errorf("bus: %w: %q", ErrUnknownSubscription, name)
	}
	return s, nil
}

// poisonQueue returns the poison queue of a subscription, and its name there.
func (b *Bus) poisonQueue(name string) (transports.PoisonQueue, string, error) {
	s, err := b.subscription(name)
	if err != nil {
		return nil, "", err
	}
	queue, ok := b.transport.(transports.PoisonQueue)
	if !ok {
		return nil, "", fmt.Errorf("bus: poison queues: %w", transports.ErrUnsupported)
	}
	return queue, s.fullName, nil
}

// Poisoned lists the poisoned events of a subscription, oldest first, and changes
// nothing. The sequence ends after the first error.
func (b *Bus) Poisoned(ctx context.Context, name string) iter.Seq2[transports.Poisoned, error] {
	return func(yield func(transports.Poisoned, error) bool) {
		queue, fullName, err := b.poisonQueue(name)
		if err != nil {
			yield(transports.Poisoned{}, err)
			return
		}
		queue.Poisoned(ctx, fullName, transports.PoisonPage{})(yield)
	}
}

// Selection chooses poisoned events. The zero value chooses all.
type Selection struct {
	// Filter chooses an event; nil chooses each.
	Filter func(transports.Poisoned) bool

	// Limit is the most events to take, the oldest first. 0 means no limit.
	Limit int

	// DryRun counts the events and leaves them.
	DryRun bool

	// Every is the time between two events, so that a redrive does not overrun
	// what has just recovered. 0 means none.
	Every time.Duration
}

// Redrive puts poisoned events back to the subscription that failed, and to no
// other, for a fresh start. It moves exactly what it has shown to the Filter; an event that
// fails meanwhile is left, also when it is one of them that fails again. Redrive returns
// how many events it moved, also with an error.
func (b *Bus) Redrive(ctx context.Context, name string, sel Selection) (int, error) {
	return b.takePoisoned(ctx, name, sel, transports.PoisonQueue.RequeuePoisoned)
}

// DiscardPoisoned deletes poisoned events for good. It returns how many it
// deleted, also with an error.
func (b *Bus) DiscardPoisoned(ctx context.Context, name string, sel Selection) (int, error) {
	return b.takePoisoned(ctx, name, sel, transports.PoisonQueue.DiscardPoisoned)
}

// redriveBatch is how many events are moved by one call of the transport.
const redriveBatch = 100

func (b *Bus) takePoisoned(ctx context.Context, name string, sel Selection,
	take func(transports.PoisonQueue, context.Context, string, ...transports.PoisonHandle) (int, error),
) (int, error) {
	queue, fullName, err := b.poisonQueue(name)
	if err != nil {
		return 0, err
	}
	// First choose, then move: an event that fails again while the rest is moved
	// must not be met again.
	var page transports.PoisonPage
	if sel.Filter == nil {
		page.Limit = sel.Limit
	}
	var chosen []transports.PoisonHandle
	for p, err := range queue.Poisoned(ctx, fullName, page) {
		if err != nil {
			return 0, fmt.Errorf("bus: list poisoned events of %s: %w", fullName, err)
		}
		if sel.Filter != nil && !sel.Filter(p) {
			continue
		}
		chosen = append(chosen, p.Handle)
		if len(chosen) == sel.Limit {
			break
		}
	}
	if sel.DryRun {
		return len(chosen), nil
	}
	batch := redriveBatch
	if sel.Every > 0 {
		batch = 1
	}
	moved := 0
	for len(chosen) > 0 {
		handles := chosen[:min(batch, len(chosen))]
		n, err := take(queue, ctx, fullName, handles...)
		moved += n
		if err != nil {
			return moved, fmt.Errorf("bus: poisoned events of %s: %w", fullName, err)
		}
		chosen = chosen[len(handles):]
		if len(chosen) > 0 && sel.Every > 0 {
			if err := sleep(ctx, sel.Every); err != nil {
				return moved, err
			}
		}
	}
	return moved, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// RemoveSubscription deletes a subscription of this bus at the transport, with all
// that waits in it and its poison queue: for one that is no longer needed. When the
// bus runs, it ends, since it has lost a subscription; call it after Shutdown.
func (b *Bus) RemoveSubscription(ctx context.Context, name string) error {
	s, err := b.subscription(name)
	if err != nil {
		return err
	}
	remover, ok := b.transport.(transports.SubscriptionRemover)
	if !ok {
		return fmt.Errorf("bus: remove subscription: %w", transports.ErrUnsupported)
	}
	if err := remover.RemoveSubscription(ctx, s.fullName); err != nil {
		return fmt.Errorf("bus: remove subscription %s: %w", s.fullName, err)
	}
	b.mu.Lock()
	started := b.state == starting || b.state == running
	b.mu.Unlock()
	if started { // the channel is closed only when everything is settled, which a pause or a wait in place puts off
		b.beginStop(&SubscriptionLostError{Subscription: s.fullName})
	}
	return nil
}

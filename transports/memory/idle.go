package memory

import "context"

// WaitIdle blocks until no subscription holds a message, be it ready, delayed or in
// flight, and returns nil; or until ctx ends, and returns its cause. Poisoned
// messages don't count.
//
// A handler that publishes holds the message that it handles until it returns, so
// the broker is idle only when everything that a message has set off is done.
func (b *Broker) WaitIdle(ctx context.Context) error {
	b.mu.Lock()
	if b.held == 0 {
		b.mu.Unlock()
		return nil
	}
	if b.idle == nil {
		b.idle = make(chan struct{})
	}
	idle := b.idle
	b.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hold counts n messages more, or less. Called with mu held.
func (b *Broker) hold(n int) {
	b.held += n
	if b.held == 0 && b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
}

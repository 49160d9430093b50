// Package watch waits for documents to become final, on whichever node they are processed.
package watch

import (
	"context"
	"sync"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/document"
)

// interval is how often the database is asked in any case: what is published while this node
// has lost its broker does not reach an ephemeral subscription.
const interval = 2 * time.Second

// Watcher wakes those who wait for a document. Its methods may be called concurrently.
type Watcher struct {
	store *document.Store

	mu      sync.Mutex // guards waiting
	waiting map[string]map[chan struct{}]struct{}
}

// New makes a watcher, with an ephemeral subscription on a bus that has not started.
func New(b *bus.Bus, store *document.Store) *Watcher {
	w := &Watcher{store: store, waiting: make(map[string]map[chan struct{}]struct{})}
	s := b.Subscription("watch", bus.Ephemeral(), bus.WithoutDedup(), bus.Retry(bus.NoRetry()))
	bus.On(s, func(_ context.Context, e events.DocumentProcessed) error { return w.wake(e.DocumentID) })
	bus.On(s, func(_ context.Context, e events.DocumentFailed) error { return w.wake(e.DocumentID) })
	return w
}

func (w *Watcher) wake(id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.waiting[id] {
		select {
		case c <- struct{}{}:
		default: // it is awake
		}
	}
	return nil
}

// Wait returns a document when it is final, or the context's error.
func (w *Watcher) Wait(ctx context.Context, id string) (document.Document, error) {
	woken := make(chan struct{}, 1)
	w.mu.Lock()
	if w.waiting[id] == nil {
		w.waiting[id] = make(map[chan struct{}]struct{})
	}
	w.waiting[id][woken] = struct{}{}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.waiting[id], woken)
		if len(w.waiting[id]) == 0 {
			delete(w.waiting, id)
		}
	}()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		d, err := w.store.Get(ctx, id) // after it is known that somebody waits, so no event is missed
		if err != nil || d.Status.Final() {
			return d, err
		}
		select {
		case <-woken:
		case <-ticker.C:
		case <-ctx.Done():
			return d, ctx.Err()
		}
	}
}

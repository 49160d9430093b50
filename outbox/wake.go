package outbox

import (
	"sync"
	"time"
)

// After a Publish in a transaction that somebody else commits, the process looks for the
// events often for a while: every lookInterval at first, which then becomes longer, since
// most transactions end soon.
const (
	lookFor         = time.Second
	lookInterval    = 3 * time.Millisecond
	maxLookInterval = 20 * time.Millisecond
)

// waker looks for events that may be committed at any moment.
//
//	idle ──expect──► looking, until lookFor after the last expect ──► idle
type waker struct {
	look func()

	mu     sync.Mutex // guards what follows
	until  time.Time
	next   time.Duration
	timer  *time.Timer // nil while idle
	closed bool
}

// expect begins to look, or goes on for longer.
func (w *waker) expect() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.until, w.next = time.Now().Add(lookFor), lookInterval
	if w.timer == nil {
		w.timer = time.AfterFunc(w.next, w.tick)
	}
}

func (w *waker) tick() {
	w.mu.Lock()
	if w.closed || time.Now().After(w.until) {
		w.timer = nil
		w.mu.Unlock()
		return
	}
	w.next = min(w.next*5/4, maxLookInterval)
	w.timer = time.AfterFunc(w.next, w.tick)
	w.mu.Unlock()
	w.look()
}

func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

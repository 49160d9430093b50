package analysis

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/gotidings/tidings/examples/documents/internal/document"
)

// Faults makes a service flaky: what it wraps answers late, or 503, or not at all. The zero
// value changes nothing. Its methods may be called concurrently.
type Faults struct {
	mu    sync.Mutex // guards what follows
	part  float64
	delay time.Duration
	down  bool
	hung  chan struct{} // closed when it hangs no longer; nil: it does not
}

// Fail lets a part of the calls, 0 to 1, be answered 503.
func (f *Faults) Fail(part float64) { f.set(func() { f.part = part }) }

// Slow lets each call take up to delay longer.
func (f *Faults) Slow(delay time.Duration) { f.set(func() { f.delay = delay }) }

// Down lets all calls be answered 503, or no longer so.
func (f *Faults) Down(down bool) { f.set(func() { f.down = down }) }

// Hang lets all calls wait, until it is called again with false.
func (f *Faults) Hang(hang bool) {
	f.set(func() {
		switch {
		case hang && f.hung == nil:
			f.hung = make(chan struct{})
		case !hang && f.hung != nil:
			close(f.hung)
			f.hung = nil
		}
	})
}

func (f *Faults) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// Wrap returns next with the faults.
func (f *Faults) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		part, delay, down, hung := f.part, f.delay, f.down, f.hung
		f.mu.Unlock()
		// The server notices that a client has gone only when the body was read.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, document.MaxJSON))
		if err != nil {
			http.Error(w, "the body can't be read", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !wait(r.Context(), delay, hung) {
			return
		}
		if down || rand.Float64() < part {
			http.Error(w, "an injected fault", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// wait waits for up to delay, and for what hangs. It reports whether the client is still there.
func wait(ctx context.Context, delay time.Duration, hung <-chan struct{}) bool {
	if delay > 0 {
		select {
		case <-time.After(rand.N(delay)):
		case <-ctx.Done():
			return false
		}
	}
	if hung != nil {
		select {
		case <-hung:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

package analysis

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Faults makes a service flaky: what it wraps answers late, or 503, or not at all until it
// is up again. The zero value changes nothing. Its methods may be called concurrently.
type Faults struct {
	mu    sync.Mutex // guards what follows
	part  float64
	delay time.Duration
	down  bool
}

// Fail lets a part of the calls, 0 to 1, be answered 503.
func (f *Faults) Fail(part float64) { f.set(func() { f.part = part }) }

// Slow lets each call take up to delay longer.
func (f *Faults) Slow(delay time.Duration) { f.set(func() { f.delay = delay }) }

// Down lets all calls be answered 503, or no longer so.
func (f *Faults) Down(down bool) { f.set(func() { f.down = down }) }

func (f *Faults) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// Wrap returns next with the faults.
func (f *Faults) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		part, delay, down := f.part, f.delay, f.down
		f.mu.Unlock()
		if delay > 0 {
			// The server notices that a client has gone only when the body was read.
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
			if err != nil {
				http.Error(w, "the body can't be read", http.StatusBadRequest)
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			select {
			case <-time.After(rand.N(delay)):
			case <-r.Context().Done():
				return
			}
		}
		if down || rand.Float64() < part {
			http.Error(w, "an injected fault", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

package discovery

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// world is a service whose instances can be changed.
type world struct {
	mu        sync.Mutex // guards what follows
	addresses []string
	err       error
	asked     int
	answers   map[string]any // by address: a status, or an error
	got       []*http.Request
}

func (w *world) Resolve(context.Context) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	return w.addresses, w.err
}

func (w *world) set(err error, addresses ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addresses, w.err = addresses, err
}

func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, req)
	switch a := w.answers[req.URL.Host].(type) {
	case error:
		return nil, a
	case int:
		return &http.Response{StatusCode: a, Body: http.NoBody}, nil
	default:
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("fine"))}, nil
	}
}

func open(t *testing.T, w *world, cfg Config) *Balancer {
	t.Helper()
	cfg.Resolver, cfg.Transport = w, w
	b, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// send makes a request and returns who got it.
func send(t *testing.T, b *Balancer) (address string, res *http.Response, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://ocr/texts?x=1", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "" // which means that of the URL
	w, _ := b.cfg.Transport.(*world)
	w.mu.Lock()
	before := len(w.got)
	w.mu.Unlock()
	res, err = b.RoundTrip(req)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.got) == before { // nobody
		return "", res, err
	}
	last := w.got[len(w.got)-1]
	if last.Host != "ocr" || last.URL.Path != "/texts" || last.URL.RawQuery != "x=1" || req.URL.Host != "ocr" {
		t.Errorf("request for %s has host %q; the caller's is for %s now", last.URL, last.Host, req.URL)
	}
	return last.URL.Host, res, err
}

// sendAll makes n requests, closes what comes, and counts who got them.
func sendAll(t *testing.T, b *Balancer, n int) map[string]int {
	t.Helper()
	count := make(map[string]int)
	for range n {
		address, res, err := send(t, b)
		if err == nil {
			if err := res.Body.Close(); err != nil {
				t.Error(err)
			}
		}
		count[address]++
	}
	return count
}

func wantCount(t *testing.T, got map[string]int, a, b, c int) {
	t.Helper()
	if got["a:1"] != a || got["b:1"] != b || got["c:1"] != c {
		t.Errorf("requests are %v, want %d, %d, %d", got, a, b, c)
	}
}

func TestRoundRobin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, &world{addresses: []string{"a:1", "b:1", "c:1"}}, Config{})
		wantCount(t, sendAll(t, b, 9), 3, 3, 3)
	})
}

func TestLeastInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, &world{addresses: []string{"a:1", "b:1", "c:1"}}, Config{Policy: LeastInFlight})
		wantCount(t, sendAll(t, b, 9), 3, 3, 3) // by turns while all are idle
		open := make(map[string]*http.Response)
		for range 3 {
			address, res, err := send(t, b)
			if err != nil {
				t.Fatal(err)
			}
			open[address] = res
		}
		if len(open) != 3 {
			t.Fatalf("three requests went to %d instances", len(open))
		}
		for range 2 { // closing twice counts once
			if err := open["b:1"].Body.Close(); err != nil {
				t.Error(err)
			}
		}
		wantCount(t, sendAll(t, b, 4), 0, 4, 0)
		for range 2 { // b is as busy as the others after the first
			if _, _, err := send(t, b); err != nil {
				t.Error(err)
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		sum := 0
		for _, i := range b.instances {
			sum += i.inFlight
		}
		if sum != 4 || b.instances[1].inFlight < 1 {
			t.Errorf("%d requests are counted as under way, want 4", sum)
		}
	})
}

func TestFailingInstancesAreSkipped(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]any{"no connection": errors.New("refused"), "busy": 503} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &world{addresses: []string{"a:1", "b:1", "c:1"}, answers: map[string]any{"b:1": failure}}
				b := open(t, w, Config{Policy: LeastInFlight})
				for range 2 { // once, and once more when it had its time
					if got := sendAll(t, b, 7); got["b:1"] != 1 || got["a:1"] < 2 || got["c:1"] < 2 {
						t.Errorf("requests are %v, want one for b", got)
					}
					time.Sleep(10 * time.Second)
				}
				w.mu.Lock()
				w.answers = nil
				w.mu.Unlock()
				wantCount(t, sendAll(t, b, 6), 2, 2, 2)
			})
		})
	}
}

func TestAllInstancesFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, &world{addresses: []string{"a:1", "b:1"}, answers: map[string]any{"a:1": 502, "b:1": 504}}, Config{})
		wantCount(t, sendAll(t, b, 8), 4, 4, 0)
	})
}

// Errors of the service itself, and callers who go away, say nothing of an instance.
func TestWhatIsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{addresses: []string{"a:1", "b:1"}, answers: map[string]any{"a:1": 500, "b:1": context.Canceled}}
		b := open(t, w, Config{})
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		req, err := http.NewRequestWithContext(gone, http.MethodGet, "http://ocr/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			if res, err := b.RoundTrip(req); err == nil {
				if err := res.Body.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		w.mu.Lock()
		w.answers = nil
		w.mu.Unlock()
		wantCount(t, sendAll(t, b, 4), 2, 2, 0)
	})
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{err: errors.New("no such host")}
		b := open(t, w, Config{})
		if _, _, err := send(t, b); !errors.Is(err, ErrNoInstances) {
			t.Errorf("error is %v, want ErrNoInstances", err)
		}
		w.set(nil, "a:1")
		time.Sleep(time.Second) // soon, while none is known
		synctest.Wait()
		wantCount(t, sendAll(t, b, 2), 2, 0, 0)

		for _, err := range []error{errors.New("timeout"), nil} { // also an empty answer
			w.set(err)
			time.Sleep(30 * time.Second)
			synctest.Wait()
			wantCount(t, sendAll(t, b, 2), 2, 0, 0)
		}
		w.set(nil, "b:1", "c:1")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		wantCount(t, sendAll(t, b, 2), 0, 1, 1)
		if got := b.Instances(); !slices.Equal(got, []string{"b:1", "c:1"}) {
			t.Errorf("instances are %v", got)
		}
		if w.asked != 5 {
			t.Errorf("the resolver was asked %d times in 91 s, want 5", w.asked)
		}
	})
}

// What is known of an instance outlives an answer that still has it.
func TestRefreshKeepsWhatIsKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{addresses: []string{"a:1", "b:1"}, answers: map[string]any{"a:1": 503}}
		b := open(t, w, Config{Refresh: time.Second, SkipFor: time.Minute})
		sendAll(t, b, 2)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		wantCount(t, sendAll(t, b, 4), 0, 4, 0)
	})
}

func TestOverConnections(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	one, two := httptest.NewServer(handler), httptest.NewServer(handler)
	defer one.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	b, err := Open(t.Context(), Config{Resolver: Static(one.Listener.Addr().String(), two.Listener.Addr().String()), Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // there is none
	client := &http.Client{Transport: b}
	get := func() (string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://ocr.internal/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close() //nolint:errcheck // it was read
		body, err := io.ReadAll(res.Body)
		return string(body), err
	}
	two.Close()
	failures := 0
	for range 10 {
		body, err := get()
		if err != nil {
			failures++
		} else if body != "ocr.internal" {
			t.Errorf("Host is %q", body)
		}
	}
	if failures != 1 {
		t.Errorf("%d requests failed, want one: then the instance is passed over", failures)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {Resolver: Static(), Refresh: -1}, {Resolver: Static(), SkipFor: -1}} {
		if _, err := Open(t.Context(), cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

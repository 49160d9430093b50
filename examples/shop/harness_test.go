package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long a test waits for what comes soon.
const deadline = 2 * time.Minute

func noEnv(string) string { return "" }

// newConfig is the configuration of a shop at a free port, on SQLite.
func newConfig(t *testing.T, args ...string) config {
	t.Helper()
	args = append([]string{"-addr", "127.0.0.1:0", "-db", "sqlite:" + filepath.ToSlash(filepath.Join(t.TempDir(), "shop.db"))}, args...)
	cfg, err := parseConfig(args, noEnv, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func openShop(t *testing.T, cfg config) *service {
	t.Helper()
	s, err := openService(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// startShop starts a process of a shop and ends it with the test.
func startShop(t *testing.T, cfg config) *service {
	t.Helper()
	s := openShop(t, cfg)
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// request sends a request to a process and returns the code and the body.
func request(t *testing.T, s *service, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.listener.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// post sends a request that is to be accepted, and reads the answer.
func post(t *testing.T, s *service, path, body string) (answer struct{ CustomerID, OrderID int64 }) {
	t.Helper()
	code, data := request(t, s, http.MethodPost, path, body)
	if code != http.StatusCreated {
		t.Fatalf("POST %s: %d %s", path, code, data)
	}
	if err := json.Unmarshal([]byte(data), &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// until waits for a condition that becomes true soon.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for !condition() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s did not happen within %v", what, deadline)
		}
	}
}

// count returns the number that a query has found.
func count(t *testing.T, db *database, query string, args ...any) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), db.q(query), args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// output is a writer for several goroutines.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

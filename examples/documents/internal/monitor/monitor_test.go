package monitor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/examples/documents/internal/monitor"
	"github.com/gotidings/tidings/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs a monitor, and returns what stops it.
func run(t *testing.T, cfg monitor.Config) (running *monitor.Monitor, stop func()) {
	t.Helper()
	m, err := monitor.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Run(ctx)
	}()
	return m, func() {
		cancel()
		<-done
	}
}

// dependency is up until it is told otherwise.
type dependency struct {
	down  atomic.Bool
	calls atomic.Int32
}

func (d *dependency) check(context.Context) error {
	d.calls.Add(1)
	if d.down.Load() {
		return errors.New("dial S3CRET: refused")
	}
	return nil
}

func want(t *testing.T, m *monitor.Monitor, want ...monitor.Result) {
	t.Helper()
	if got := m.Snapshot(); !slices.Equal(got, want) {
		t.Errorf("at %v: got\n%+v, want\n%+v", time.Now(), got, want)
	}
}

func TestUpAndDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d dependency
		var changes []monitor.Status
		var log bytes.Buffer
		start := time.Now()
		at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
		cfg := monitor.Config{
			Checks:   []monitor.Check{{Name: "database", Func: d.check}},
			OnChange: func(r monitor.Result) { changes = append(changes, r.Status) },
			Logger:   slog.New(slog.NewTextHandler(&log, nil)),
		}
		idle, err := monitor.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		want(t, idle, monitor.Result{Name: "database", Status: monitor.Unknown, Since: start})

		m, stop := run(t, cfg)
		synctest.Wait()
		want(t, m, monitor.Result{Name: "database", Status: monitor.Up, Since: start, CheckedAt: start})
		time.Sleep(90 * time.Second)
		synctest.Wait()
		want(t, m, monitor.Result{Name: "database", Status: monitor.Up, Since: start, CheckedAt: at(1)})
		d.down.Store(true)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		want(t, m, monitor.Result{Name: "database", Status: monitor.Down, Since: at(2), CheckedAt: at(3), Problem: "failed", Failures: 2})
		d.down.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		want(t, m, monitor.Result{Name: "database", Status: monitor.Up, Since: at(4), CheckedAt: at(4)})
		stop()
		if calls := d.calls.Load(); calls != 5 {
			t.Errorf("%d checks in four minutes and a half, want 5", calls)
		}
		if !slices.Equal(changes, []monitor.Status{monitor.Up, monitor.Down, monitor.Up}) {
			t.Errorf("changes are %v", changes)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 3 || strings.Count(log.String(), "refused") != 1 {
			t.Errorf("log is\n%s\nwant a line for each change, with the error", log.String())
		}
	})
}

// One that hangs is down at its timeout, and delays no other. One that does not even end
// then is not called a second time.
func TestHanging(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d dependency
		var stubborn atomic.Int32
		release := make(chan struct{})
		m, stop := run(t, monitor.Config{Interval: 10 * time.Second, Checks: []monitor.Check{
			{Name: "slow", Timeout: 2 * time.Second, Func: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
			{Name: "stubborn", Func: func(context.Context) error { stubborn.Add(1); <-release; return nil }},
			{Name: "quick", Func: d.check},
			{Name: "broken", Func: func(context.Context) error { panic("broken") }},
		}})
		start := time.Now()
		time.Sleep(31 * time.Second)
		synctest.Wait()
		want(t, m,
			monitor.Result{Name: "slow", Status: monitor.Down, Since: start.Add(2 * time.Second), CheckedAt: start.Add(22 * time.Second), TookMs: 2000, Problem: "no answer within 2s", Failures: 3},
			monitor.Result{Name: "stubborn", Status: monitor.Down, Since: start.Add(5 * time.Second), CheckedAt: start.Add(5 * time.Second), TookMs: 5000, Problem: "no answer within 5s", Failures: 1},
			monitor.Result{Name: "quick", Status: monitor.Up, Since: start, CheckedAt: start.Add(30 * time.Second)},
			monitor.Result{Name: "broken", Status: monitor.Down, Since: start, CheckedAt: start.Add(30 * time.Second), Problem: "failed", Failures: 4},
		)
		if stubborn.Load() != 1 || d.calls.Load() != 4 {
			t.Errorf("the stubborn one was called %d times, the quick one %d", stubborn.Load(), d.calls.Load())
		}
		close(release)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := m.Snapshot()[1].Status; got != monitor.Up {
			t.Errorf("the stubborn one is %s when it answers", got)
		}
		stop()
	})
}

// A check that the end of the monitor interrupts says nothing.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, stop := run(t, monitor.Config{Checks: []monitor.Check{{Name: "x", Func: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}}})
		start := time.Now()
		time.Sleep(time.Second)
		stop()
		want(t, m, monitor.Result{Name: "x", Status: monitor.Unknown, Since: start})
	})
}

func TestReadyz(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var database, mail dependency
		cfg := monitor.Config{Checks: []monitor.Check{{Name: "database", Func: database.check}, {Name: "mail", Func: mail.check, Optional: true}}}
		answer := func(m *monitor.Monitor) (int, string) {
			h, err := health.New(health.Config{Checks: m.Checks(), MaxAge: -1})
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", http.NoBody))
			return w.Code, w.Body.String()
		}
		idle, err := monitor.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if code, body := answer(idle); code != 503 || !strings.Contains(body, "not checked yet") {
			t.Errorf("before the first check: %d %s", code, body)
		}
		m, stop := run(t, cfg)
		defer stop()
		synctest.Wait()
		if code, body := answer(m); code != 200 || strings.Contains(body, "fail") {
			t.Errorf("up: %d %s", code, body)
		}
		mail.down.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if code, body := answer(m); code != 200 || !strings.Contains(body, `"mail":[{"status":"warn","output":"down since 2000-01-01T00:01:00Z: failed"}]`) {
			t.Errorf("without mail: %d %s", code, body)
		}
		database.down.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		code, body := answer(m)
		shown, err := json.Marshal(m.Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		if code != 503 || !strings.Contains(body, `"database":[{"status":"fail"`) || strings.Contains(body+string(shown), "S3CRET") {
			t.Errorf("without the database: %d %s, %s", code, body, shown)
		}
	})
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	for path, up := range map[string]bool{"/healthz": true, "/": false} {
		if err := monitor.HTTP("x", server.Client(), server.URL+path).Func(t.Context()); (err == nil) != up {
			t.Errorf("%s: %v", path, err)
		}
	}
	server.Close()
	if err := monitor.HTTP("x", server.Client(), server.URL).Func(t.Context()); err == nil {
		t.Error("a server that is away passes")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	ok := func(context.Context) error { return nil }
	_, err := monitor.New(monitor.Config{Interval: -1, Checks: []monitor.Check{{Name: "a", Func: ok}, {Name: "a", Func: ok}, {Func: ok}, {Name: "b"}, {Name: "c", Func: ok, Timeout: -1}}})
	for _, want := range []string{"Checks[1]", "Checks[2]", "Checks[3]", "Checks[4]", "Interval"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want it to say %q", err, want)
		}
	}
}

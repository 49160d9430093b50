package health_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errSecret = errors.New("dial postgres://shop:hunter2@db.internal: refused")

// detail and answer are a body as the draft has it.
type detail struct {
	Status        string   `json:"status"`
	Output        string   `json:"output"`
	Time          string   `json:"time"`
	ObservedValue *float64 `json:"observedValue"`
	ObservedUnit  string   `json:"observedUnit"`
}

type answer struct {
	Status string              `json:"status"`
	Checks map[string][]detail `json:"checks"`
}

func newHandler(t *testing.T, cfg health.Config) http.Handler {
	t.Helper()
	h, err := health.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func request(ctx context.Context, h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, path, http.NoBody))
	return w
}

// get asks for a path and returns the code and the body.
func get(t *testing.T, h http.Handler, path string) (int, answer) {
	t.Helper()
	w := request(t.Context(), h, http.MethodGet, path)
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("%s: %v in %q", path, err, w.Body)
	}
	return w.Code, a
}

// want checks a code and a status.
func want(t *testing.T, h http.Handler, path string, code int, status string) answer {
	t.Helper()
	got, a := get(t, h, path)
	if got != code || a.Status != status {
		t.Errorf("%s: %d %s, want %d %s (%+v)", path, got, a.Status, code, status, a.Checks)
	}
	return a
}

// one returns the only detail of a check.
func one(t *testing.T, a answer, check string) detail {
	t.Helper()
	if len(a.Checks[check]) != 1 {
		t.Fatalf("%d entries for %s in %+v", len(a.Checks[check]), check, a)
	}
	return a.Checks[check][0]
}

func checks(list ...health.Check) health.Config { return health.Config{Checks: list} }

func fixed(name string, err error) health.Check {
	return health.Check{Name: name, Func: func(context.Context) error { return err }}
}

// logged is a logger and what it has written.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

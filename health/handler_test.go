package health_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gotidings/tidings/health"
)

func TestReadyWhenEveryCheckPasses(t *testing.T) {
	t.Parallel()
	want(t, newHandler(t, health.Config{}), "/readyz", http.StatusOK, "pass")
	a := want(t, newHandler(t, checks(fixed("a", nil), fixed("b", nil))), "/readyz", http.StatusOK, "pass")
	for _, name := range []string{"a", "b"} {
		if d := one(t, a, name); d != (detail{Status: "pass"}) {
			t.Errorf("%s: %+v", name, d)
		}
	}
	a = want(t, newHandler(t, checks(fixed("a", nil), fixed("b", health.Warn("slow", nil)))), "/readyz", http.StatusOK, "warn")
	if d := one(t, a, "b"); d.Status != "warn" || d.Output != "slow" {
		t.Errorf("b: %+v", d)
	}
	a = want(t, newHandler(t, checks(fixed("a", health.Fail("away", nil)), fixed("b", health.Warn("slow", nil)), fixed("c", nil))),
		"/readyz", http.StatusServiceUnavailable, "fail")
	if d := one(t, a, "a"); d.Status != "fail" || d.Output != "away" {
		t.Errorf("a: %+v", d)
	}
}

// The restart of a process does not mend a broker.
func TestLiveAsksNobody(t *testing.T) {
	t.Parallel()
	h := newHandler(t, checks(health.Check{Name: "a", Func: func(context.Context) error {
		t.Error("a check was run")
		return errSecret
	}}))
	if a := want(t, h, "/livez", http.StatusOK, "pass"); len(a.Checks) != 0 {
		t.Errorf("checks: %v", a.Checks)
	}
}

func TestOneCheckIsAskedAlone(t *testing.T) {
	t.Parallel()
	h := newHandler(t, checks(fixed("bad", errSecret), fixed("good", nil)))
	if a := want(t, h, "/readyz/good", http.StatusOK, "pass"); len(a.Checks) != 1 {
		t.Errorf("checks: %v", a.Checks)
	}
	want(t, h, "/readyz/bad", http.StatusServiceUnavailable, "fail")
	for _, path := range []string{"/readyz/other", "/readyz/", "/readyz/good/more", "/", "/livez/good"} {
		if w := request(t.Context(), h, http.MethodGet, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, w.Code)
		}
	}
}

func TestVerboseAddsTimes(t *testing.T) {
	t.Parallel()
	h := newHandler(t, checks(fixed("a", nil)))
	for _, path := range []string{"/readyz?verbose", "/readyz/a?verbose", "/readyz?verbose=true", "/readyz?verbose=yes"} {
		a := want(t, h, path, http.StatusOK, "pass")
		if _, err := time.Parse(time.RFC3339Nano, one(t, a, "a").Time); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if d := one(t, a, "a:responseTime"); d.Status != "pass" || d.ObservedValue == nil || d.ObservedUnit != "ms" {
			t.Errorf("%s: %+v", path, d)
		}
	}
	for _, path := range []string{"/readyz", "/readyz?verbose=false", "/readyz?verbose=0"} {
		if a := want(t, h, path, http.StatusOK, "pass"); len(a.Checks) != 1 || one(t, a, "a").Time != "" {
			t.Errorf("%s: %v", path, a.Checks)
		}
	}
}

func TestHeadHasTheHeadersOfGetAndNoBody(t *testing.T) {
	t.Parallel()
	h := newHandler(t, checks(fixed("a", errSecret)))
	for _, path := range []string{"/livez", "/readyz", "/readyz/a"} {
		get := request(t.Context(), h, http.MethodGet, path)
		head := request(t.Context(), h, http.MethodHead, path)
		if head.Code != get.Code || head.Body.Len() != 0 {
			t.Errorf("%s: %d with %d bytes", path, head.Code, head.Body.Len())
		}
		for name := range get.Header() {
			if head.Header().Get(name) != get.Header().Get(name) {
				t.Errorf("%s: %s is %q, want %q", path, name, head.Header().Get(name), get.Header().Get(name))
			}
		}
	}
	w := request(t.Context(), h, http.MethodGet, "/livez")
	if w.Header().Get("Content-Type") != "application/health+json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("headers: %v", w.Header())
	}
	if w := request(t.Context(), h, http.MethodPost, "/readyz"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestErrorsAreLoggedAndNotShown(t *testing.T) {
	t.Parallel()
	var log logged
	cfg := checks(fixed("plain", errSecret), fixed("marked", errors.Join(health.Fail("the till is shut", errSecret))),
		health.Check{Name: "panicking", Func: func(context.Context) error { panic(errSecret) }},
		health.Age("age", time.Minute, func(context.Context) (time.Duration, error) { return 0, errSecret }))
	cfg.Logger, cfg.MaxAge = log.logger(), -1
	h := newHandler(t, cfg)
	for range 2 {
		w := request(t.Context(), h, http.MethodGet, "/readyz?verbose")
		if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		for _, text := range []string{`"failed"`, `"the till is shut"`, `"panicked"`, `"the age can't be told"`} {
			if !strings.Contains(w.Body.String(), text) {
				t.Errorf("%s is not in %s", text, w.Body)
			}
		}
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 4 {
		t.Errorf("%d lines for 4 checks that failed twice:\n%s", n, &log)
	}
	if n := strings.Count(log.String(), "hunter2"); n != 4 {
		t.Errorf("%d errors in the log, want 4:\n%s", n, &log)
	}
}

func TestChangesAreLogged(t *testing.T) {
	t.Parallel()
	var log logged
	results := []error{nil, health.Warn("w", nil), health.Fail("f", nil), health.Fail("f", nil), nil, nil}
	cfg := checks(health.Check{Name: "a", Func: func(context.Context) error {
		err := results[0]
		results = results[1:]
		return err
	}})
	cfg.Logger, cfg.MaxAge = log.logger(), -1
	h := newHandler(t, cfg)
	for len(results) > 0 {
		get(t, h, "/readyz")
	}
	if lines := strings.Count(log.String(), "\n"); lines != 3 {
		t.Errorf("%d lines, want 3:\n%s", lines, &log)
	}
	if !strings.HasSuffix(log.String(), "level=INFO msg=\"health check passes again\" check=a\n") {
		t.Errorf("the end is not logged:\n%s", &log)
	}
}

func TestHandlerWorksBelowAPrefix(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.Handle("/internal/", http.StripPrefix("/internal", newHandler(t, checks(fixed("a", nil)))))
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, code := range map[string]int{"/internal/readyz": 200, "/internal/readyz/a": 200, "/internal/readyz/b": 404} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, server.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != code {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, code)
		}
	}
}

func TestNewReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := health.New(health.Config{Timeout: -1, Checks: []health.Check{
		fixed("", nil), fixed("a:b", nil), fixed("a/b", nil), fixed("twice", nil), fixed("twice", nil),
		{Name: "empty"},
		{Name: "hasty", Func: fixed("x", nil).Func, Timeout: -1},
	}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, text := range []string{
		"health: Timeout is -1ns", `Checks[0].Name is ""`, `Checks[1].Name is "a:b"`, `Checks[2].Name is "a/b"`,
		`Checks[4].Name is "twice"`, "Checks[5].Func is nil", "Checks[6].Timeout is -1ns",
	} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in: %v", text, err)
		}
	}
	if strings.Contains(err.Error(), "Checks[3]") {
		t.Errorf("the first of two is at fault: %v", err)
	}
}

package httpclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func TestRequest(t *testing.T) {
	t.Parallel()
	s := serve(fine)
	c := client(t, s, func(c *Config) {
		c.Auth = func(r *http.Request) error { r.Header.Set("Authorization", "x"); return nil }
	})
	_, err := Do(WithRequestID(t.Context(), "req-7"), c, Request[text]{
		Method: http.MethodPost, Path: "/texts/" + url.PathEscape("a/b c"), Query: url.Values{"lang": {"en"}}, Body: text{"x"}, IdempotencyKey: "k",
	})
	if err != nil {
		t.Fatal(err)
	}
	req := s.got[0]
	if got := req.Method + " " + req.URL.String() + " " + s.body[0]; got != `POST http://ocr.internal/v1/texts/a%2Fb%20c?lang=en {"text":"x"}` {
		t.Errorf("request is %s", got)
	}
	for name, want := range map[string]string{
		"Accept": "application/json", "Content-Type": "application/json", "X-Request-ID": "req-7", "Idempotency-Key": "k", "Authorization": "x",
	} {
		if got := req.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if req.GetBody != nil {
		t.Error("net/http could repeat the request on its own, with a signature that has been used")
	}
	if _, err := get(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if id := s.got[1].Header.Get("X-Request-ID"); len(id) != 36 {
		t.Errorf("id of a call that was given none is %q", id)
	}
	for _, path := range []string{"texts", "/texts?secret=1", "//\x00"} {
		if _, err := Do(t.Context(), c, Request[text]{Path: path}); err == nil || s.tries() != 2 {
			t.Errorf("path %q is no error", path)
		}
	}
	if _, err := Do(t.Context(), c, Request[text]{Method: http.MethodPost, Path: "/", Body: make(chan int)}); err == nil {
		t.Error("a body that JSON does not know is no error")
	}
}

func TestAnswersWithoutBody(t *testing.T) {
	t.Parallel()
	for _, a := range []answer{{status: 204}, {status: 202, body: "\n"}} {
		got, err := get(t.Context(), client(t, serve(a)))
		if err != nil || got != (text{}) {
			t.Errorf("%d: got %v, %v", a.status, got, err)
		}
	}
}

func TestResponseIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 100
	long := func(n int) answer {
		return answer{status: 200, body: `{"text":"` + strings.Repeat("x", n-len(`{"text":""}`)) + `"}`}
	}
	small := func(c *Config) { c.MaxResponseBytes = limit }
	if _, err := get(t.Context(), client(t, serve(long(limit)), small)); err != nil {
		t.Error(err)
	}
	s := serve(long(limit + 1))
	_, err := get(t.Context(), client(t, s, small))
	wantKind(t, err, ErrMalformed)
	wantTries(t, s)
}

func TestFallback(t *testing.T) {
	t.Parallel()
	with := func(ctx context.Context, c *Client) (text, error) {
		return Do(ctx, c, Request[text]{Method: http.MethodPost, Path: "/texts", Fallback: func(_ context.Context, cause error) (text, error) {
			if _, ok := errors.AsType[*Error](cause); !ok {
				return text{}, fmt.Errorf("cause is %w", cause)
			}
			return text{"instead"}, nil
		}})
	}
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			answer answer
			want   string
			kind   error
		}{
			"fine":        {fine, "fine", nil},
			"unavailable": {down, "instead", nil},
			"timed out":   {hanging, "instead", nil},
			"refused":     {answer{status: 422}, "", ErrRefused},
			"malformed":   {answer{status: 200, body: "?"}, "", ErrMalformed},
		} {
			got, err := with(t.Context(), client(t, serve(tt.answer)))
			if got.Text != tt.want || !errors.Is(err, tt.kind) {
				t.Errorf("%s: got %v, %v", name, got, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the caller's own deadline
		defer cancel()
		if got, err := with(ctx, client(t, serve(hanging))); err != nil || got.Text != "instead" {
			t.Errorf("got %v, %v", got, err)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		_, err := with(gone, client(t, serve(hanging)))
		wantKind(t, err, nil)
	})
}

// Everything that could be a secret is in none of the lines and errors.
func TestLogs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		secret := func(status int) answer {
			return answer{status: status, body: `{"text": "S3CRET"`, header: map[string]string{"Set-Cookie": "S3CRET"}}
		}
		s := serve(secret(503), answer{after: time.Hour}, secret(400), secret(200), answer{status: 200, body: `{"text":{"S3CRET":1}}`})
		c := client(t, s, func(c *Config) {
			c.Logger = logTo(&log)
			c.Auth = func(r *http.Request) error { r.Header.Set("Authorization", "Bearer S3CRET"); return nil }
		})
		var errs []error
		for range 3 {
			_, err := Do(WithRequestID(t.Context(), "req-7"), c, Request[text]{
				Method: http.MethodPut, Path: "/texts/42", Query: url.Values{"token": {"S3CRET"}}, Body: text{"S3CRET"}, IdempotencyKey: "S3CRET",
			})
			errs = append(errs, err)
		}
		if all := log.String() + errors.Join(errs...).Error(); strings.Contains(all, "S3CRET") {
			t.Errorf("a secret is in\n%s", all)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 5 {
			t.Fatalf("%d lines, want one for each try:\n%s", len(lines), log.String())
		}
		for i, want := range []string{
			`"level":"WARN","msg":"http request","service":"ocr","method":"PUT","path":"/v1/texts/42","request_id":"req-7","try":1,"duration":0,"status":503}`,
			`"request_id":"req-7","try":2,"duration":10000000000,"error":"context deadline exceeded"}`,
			`"level":"WARN","msg":"http request","service":"ocr","method":"PUT","path":"/v1/texts/42","request_id":"req-7","try":3,"duration":0,"status":400}`,
			`"level":"INFO","msg":"http request","service":"ocr","method":"PUT","path":"/v1/texts/42","request_id":"req-7","try":1,"duration":0,"status":200}`,
			`"status":200}`,
		} {
			if !strings.HasSuffix(lines[i], want) {
				t.Errorf("line %d is\n%s\nwant it to end with\n%s", i+1, lines[i], want)
			}
		}
	})
}

// What a type's own decoding says of an answer quotes it.
func TestErrorsDoNotQuoteAnswers(t *testing.T) {
	t.Parallel()
	c := client(t, serve(answer{status: 200, body: `{"at":"S3CRET"}`}))
	_, err := Do(t.Context(), c, Request[struct{ At time.Time }]{Method: http.MethodGet, Path: "/"})
	wantKind(t, err, ErrMalformed)
	if strings.Contains(err.Error(), "S3CRET") {
		t.Errorf("a secret is in %q", err)
	}
}

func TestTrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
		s := serve(down, fine)
		c := client(t, s, func(c *Config) { c.TracerProvider = provider })
		ctx, root := provider.Tracer("test").Start(t.Context(), "root")
		if _, err := get(ctx, c); err != nil {
			t.Fatal(err)
		}
		root.End()
		ended := spans.Ended()
		if len(ended) != 3 {
			t.Fatalf("%d spans, want one for each try and the root", len(ended))
		}
		for i, span := range ended[:2] {
			sc := span.SpanContext()
			if span.Parent().SpanID() != root.SpanContext().SpanID() {
				t.Errorf("the span of try %d is not the caller's child", i+1)
			}
			if want := fmt.Sprintf("00-%s-%s-01", sc.TraceID(), sc.SpanID()); s.got[i].Header.Get("Traceparent") != want {
				t.Errorf("try %d has traceparent %q, want %q", i+1, s.got[i].Header.Get("Traceparent"), want)
			}
		}
		for _, want := range []attribute.KeyValue{
			attribute.Int("http.request.resend_count", 1), attribute.Int("http.response.status_code", 200), attribute.String("http.request.method", "GET"),
		} {
			if !slices.Contains(ended[1].Attributes(), want) {
				t.Errorf("attributes of the second try are %v, without %v", ended[1].Attributes(), want)
			}
		}
		if code := ended[0].Status().Code; code != codes.Error || ended[1].Status().Code != codes.Unset {
			t.Errorf("status of the first try is %v, of the second %v", code, ended[1].Status().Code)
		}
	})
}

func TestAuthFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := serve(fine)
		noToken := errors.New("no token")
		c := client(t, s, func(c *Config) { c.Auth = func(*http.Request) error { return noToken } })
		for range 6 {
			_, err := get(t.Context(), c)
			wantKind(t, err, ErrUnavailable)
			if !errors.Is(err, noToken) {
				t.Fatalf("error is %v", err)
			}
		}
		if s.tries() != 0 || time.Since(s.t0) != 0 || c.Breaker().State() != closed {
			t.Errorf("%d tries in %v, breaker is %v", s.tries(), time.Since(s.t0), c.Breaker().State())
		}
	})
}

// Over a real connection: a server that dies in the middle, and one that is not there.
func TestServer(t *testing.T) {
	t.Parallel()
	calls := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls <- r.URL.Path
		if len(calls) == 1 {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"text":`))
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte(`{"text":"fine"}`))
	}))
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c := client(t, transport, func(c *Config) { c.BaseURL, c.RetryDelay = server.URL, time.Millisecond })
	got, err := get(t.Context(), c)
	if err != nil || got.Text != "fine" || len(calls) != 2 {
		t.Errorf("got %v, %v after %d calls", got, err, len(calls))
	}
	server.Close()
	_, err = get(t.Context(), c)
	wantKind(t, err, ErrUnavailable)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := New(Config{BaseURL: "ftp://user:S3CRET@host", RetryDelay: -1, MaxResponseBytes: -1})
	for _, want := range []string{"Name is empty", "BaseURL is not", "RetryDelay is", "MaxResponseBytes is"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want it to say %q", err, want)
		}
	}
	_, err = New(Config{Name: "x", BaseURL: "http://user:S3CRET@host\x00"})
	if err == nil || strings.Contains(err.Error(), "S3CRET") {
		t.Errorf("error is %v", err)
	}
}

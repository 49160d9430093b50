package httpclient

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is a service in memory. Each try gets the next of its answers, and the last one
// for ever.
type service struct {
	answers []answer

	mu   sync.Mutex // guards what follows
	got  []*http.Request
	body []string
	at   []time.Duration // since start
	t0   time.Time
	open int // bodies of responses that are not closed
}

// answer is what happens to a try.
type answer struct {
	status int
	header map[string]string
	body   string
	err    error
	after  time.Duration
	slow   time.Duration // before the end of the body
}

func serve(answers ...answer) *service { return &service{answers: answers, t0: time.Now()} }

func (s *service) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
	}
	s.mu.Lock()
	a := s.answers[min(len(s.got), len(s.answers)-1)]
	s.got = append(s.got, req)
	s.body = append(s.body, string(body))
	s.at = append(s.at, time.Since(s.t0))
	s.mu.Unlock()
	if err := sleep(req.Context(), a.after); err != nil {
		return nil, err
	}
	if a.err != nil {
		return nil, a.err
	}
	header := make(http.Header)
	for k := range maps.Keys(a.header) {
		header.Set(k, a.header[k])
	}
	s.mu.Lock()
	s.open++
	s.mu.Unlock()
	return &http.Response{StatusCode: a.status, Header: header, Body: &slowBody{strings.NewReader(a.body), req.Context(), a.slow, s}}, nil
}

func (s *service) tries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// slowBody takes its time, and fails when the context of the request ends, as that of
// net/http does.
type slowBody struct {
	*strings.Reader
	ctx  context.Context //nolint:containedctx // that of the request
	slow time.Duration
	s    *service
}

func (b *slowBody) Read(p []byte) (int, error) {
	if err := sleep(b.ctx, b.slow); err != nil {
		return 0, err
	}
	b.slow = 0
	return b.Reader.Read(p)
}

func (b *slowBody) Close() error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.s.open--
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// text is what services answer with.
type text struct {
	Text string `json:"text"`
}

var (
	fine    = answer{status: 200, body: `{"text":"fine"}`}
	down    = answer{status: 503, body: `busy`}
	cut     = answer{err: errors.New("connection reset")}
	hanging = answer{after: time.Hour}
)

// client makes a client of s with the defaults, apart from what change changes.
func client(t *testing.T, s http.RoundTripper, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{Name: "ocr", BaseURL: "http://ocr.internal/v1/", Transport: s}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(ctx context.Context, c *Client) (text, error) {
	return Do(ctx, c, Request[text]{Method: http.MethodGet, Path: "/texts/42"})
}

func post(ctx context.Context, c *Client, key string) (text, error) {
	return Do(ctx, c, Request[text]{Method: http.MethodPost, Path: "/texts", Body: text{"new"}, IdempotencyKey: key})
}

// wantKind fails unless err is an *Error of the kind and of no other; nil: of none.
func wantKind(t *testing.T, err, kind error) {
	t.Helper()
	_ = asError(t, err)
	for _, k := range []error{ErrUnavailable, ErrTimedOut, ErrRefused, ErrMalformed} {
		if errors.Is(err, k) != errors.Is(kind, k) {
			t.Errorf("error %q is %q: %v", err, k, errors.Is(err, k))
		}
	}
}

func asError(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error is %v (%T), want an *Error", err, err)
	}
	return e
}

// wantTries fails unless the tries of s began at those times, a quarter of each wait more or
// less.
func wantTries(t *testing.T, s *service, waits ...time.Duration) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.at) != len(waits)+1 {
		t.Fatalf("%d tries, at %v, want %d", len(s.at), s.at, len(waits)+1)
	}
	for i, want := range waits {
		if got := s.at[i+1] - s.at[i]; got < want-want/4 || got > want+want/4+1 {
			t.Errorf("wait %d is %v, want %v or a quarter more or less", i+1, got, want)
		}
	}
	if s.open != 0 {
		t.Errorf("%d responses are not closed", s.open)
	}
}

// states notes what a breaker has become.
type states struct {
	mu   sync.Mutex
	seen []circuitbreaker.State
}

func (s *states) note(_, to circuitbreaker.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, to)
}

func (s *states) want(t *testing.T, want ...circuitbreaker.State) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.seen, want) {
		t.Errorf("the breaker was told to become %v, want %v", s.seen, want)
	}
}

// logTo makes a logger that writes JSON of every level to w.
func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

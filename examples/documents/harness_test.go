package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/api"
	"github.com/gotidings/tidings/examples/documents/internal/client"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/internal/testsql"
)

// deadline is how long a test waits for what comes soon.
const deadline = 2 * time.Minute

const (
	adasToken = "adas-token"
	bobsToken = "bobs-token"
)

func noEnv(string) string { return "" }

// newConfig is the configuration of a system of Ada and Bob at free ports, with short delays
// and no faults.
func newConfig(t *testing.T, args ...string) config {
	t.Helper()
	args = append([]string{
		"-name", uniqueName(), "-addr", "127.0.0.1:0", "-grpc-addr", "127.0.0.1:0", "-tokens", adasToken + "=ada," + bobsToken + "=bob",
		"-faults", "0", "-delay", "1ns", "-retry-delay", "5ms", "-breaker-delay", "100ms",
	}, args...)
	cfg, err := parseConfig(args, noEnv, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// onFile has the system keep everything in a file of the test's.
func onFile(t *testing.T) []string {
	t.Helper()
	return []string{"-db", "sqlite:" + filepath.ToSlash(filepath.Join(t.TempDir(), "documents.db"))}
}

// onServers has the system use PostgreSQL and RabbitMQ, in a schema and under a name that are
// the test's own.
func onServers(t *testing.T) []string {
	t.Helper()
	name := uniqueName()
	db := testsql.PostgresServer.Open(t)
	if _, err := db.ExecContext(t.Context(), `create schema "`+name+`"`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.WithoutCancel(t.Context()), `drop schema "`+name+`" cascade`); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(testsql.PostgresServer.URL())
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return []string{"-db", u.String(), "-transport", testserver.RabbitMQ(t)}
}

// uniqueName is one that no other run has, at the broker or in the database.
func uniqueName() string { return "documents-" + strings.ToLower(rand.Text()[:10]) }

// system is a process of the system under test.
type system struct {
	*service

	t     *testing.T
	ended bool
}

// start starts a process and ends it with the test, with what it has left at the broker.
func start(t *testing.T, cfg config) *system {
	t.Helper()
	return startTraced(t, cfg, noop.NewTracerProvider())
}

func startTraced(t *testing.T, cfg config, tracer trace.TracerProvider) *system {
	t.Helper()
	s := openTraced(t, cfg, tracer)
	s.begin()
	return s
}

// openSystem opens a process that is to begin later.
func openSystem(t *testing.T, cfg config) *system {
	t.Helper()
	return openTraced(t, cfg, noop.NewTracerProvider())
}

func openTraced(t *testing.T, cfg config, tracer trace.TracerProvider) *system {
	t.Helper()
	s, err := openService(t.Context(), cfg, tracer, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	sys := &system{service: s, t: t}
	t.Cleanup(func() { sys.end(true) })
	return sys
}

func (s *system) begin() {
	s.t.Helper()
	if err := s.start(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// end stops the process. Its subscriptions stay for the next one, unless they are to go.
func (s *system) end(remove bool) {
	if s.ended {
		return
	}
	s.ended = true
	if err := s.stop(); err != nil {
		s.t.Errorf("stop: %v", err)
	}
	if remove && s.bus != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a busy broker takes long
		defer cancel()
		if err := s.remove(ctx); err != nil {
			s.t.Errorf("remove: %v", err)
		}
	}
	if err := s.close(); err != nil {
		s.t.Errorf("close: %v", err)
	}
}

// connect returns a client of the system, and its live updates.
func (s *system) connect(token, user string) *userClient {
	s.t.Helper()
	transport := &http.Transport{}
	c, err := client.New(s.server.url(), token, transport)
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := client.Dial(s.t.Context(), s.server.url(), token, "user_"+user, &http.Client{Transport: transport})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = l.Close() // the test may have ended the system
		transport.CloseIdleConnections()
	})
	return &userClient{s.t, c, l}
}

// userClient is a user with a page.
type userClient struct {
	t    *testing.T
	rest *client.Client
	live *client.Live
}

// submit submits a document and follows it.
func (u *userClient) submit(ctx context.Context, name, content string) string {
	u.t.Helper()
	id := events.NewID()
	if _, err := u.rest.Submit(ctx, id, name, content); err != nil {
		u.t.Fatal(err)
	}
	if err := u.live.Join(ctx, "document_"+id); err != nil {
		u.t.Fatal(err)
	}
	return id
}

// final waits for the last live update of a document, and returns the document.
func (u *userClient) final(id string) api.View {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), deadline)
	defer cancel()
	event, err := u.live.Final(ctx, id)
	if err != nil {
		u.t.Fatalf("document %s has no last update: %v", id, err)
	}
	d, err := u.rest.Get(ctx, id)
	if err != nil {
		u.t.Fatal(err)
	}
	if event != "document."+string(d.Status) {
		u.t.Errorf("the last update of document %s is %s, but it is %s", id, event, d.Status)
	}
	return d
}

// request sends a request, whose body is made JSON unless it is a text, and returns the status
// and the body of the answer.
func (s *system) request(method, path, token string, body any) (int, string) {
	s.t.Helper()
	text, ok := body.(string)
	if !ok {
		data, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		text = string(data)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.server.url()+path, strings.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(answer))
}

// until waits for what comes soon and gives no signal.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !is() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%v have passed without: %s", deadline, what)
		}
	}
}

// query is all documents of a user.
func query(user string) document.Query { return document.Query{Owner: user} }

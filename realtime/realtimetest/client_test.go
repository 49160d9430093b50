package realtimetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/realtime"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

type progress struct {
	Document string `json:"document"`
	Percent  int    `json:"percent"`
}

func (progress) EventType() string { return "document.progress" }

// site is a server with a page and a hub, of which the page can have another one.
type site struct {
	t         *testing.T
	transport transports.Transport
	*httptest.Server
	node      atomic.Pointer[node]
	live      sync.Map     // connections that the hub was asked on
	noSockets bool         // as behind a proxy that knows none
	door      sync.RWMutex // locked while nobody can reach the hub anew
}

// connKey is that of a request's connection in its context.
type connKey struct{}

type node struct {
	hub *realtime.Hub
	bus *bus.Bus
}

func newSite(t *testing.T, noSockets bool) *site {
	t.Helper()
	transport, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, transport: transport, noSockets: noSockets}
	s.startNode()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /live/", func(w http.ResponseWriter, r *http.Request) {
		if s.noSockets && r.Header.Get("Upgrade") != "" {
			http.Error(w, "what is that?", http.StatusBadRequest)
			return
		}
		if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			s.live.Store(conn, nil)
		}
		s.door.RLock()
		s.door.RUnlock() //nolint:gocritic,staticcheck // it waits for the door
		s.node.Load().hub.ServeHTTP(w, r)
	})
	mux.HandleFunc("POST /control/{do}", s.control)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/page.html") })
	mux.HandleFunc("GET /scenario.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/scenario.js") })
	s.Server = httptest.NewUnstartedServer(mux)
	s.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, conn)
	}
	s.Start()
	t.Cleanup(func() {
		s.stop()
		s.CloseClientConnections()
		s.Server.Close()
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// startNode makes a node, whose history is its own.
func (s *site) startNode() {
	s.t.Helper()
	b, err := bus.New(s.transport, bus.Config{Source: "shop"})
	if err != nil {
		s.t.Error(err)
		return
	}
	hub, err := realtime.New(realtime.Config{
		Bus: b,
		Authenticate: func(r *http.Request) (realtime.Principal, error) {
			if user, _, _ := strings.Cut(realtime.BearerToken(r), " "); user != "ada" {
				return realtime.Principal{}, errors.New("unknown")
			}
			return realtime.Principal{ID: "ada"}, nil
		},
		Authorize: func(_ context.Context, _ realtime.Principal, group string) error {
			if group == "document_secret" {
				return realtime.ErrForbidden
			}
			return nil
		},
	})
	if err != nil {
		s.t.Error(err)
		return
	}
	realtime.On(hub, func(e progress) []string { return []string{"document_" + e.Document} })
	if err := b.Start(context.Background()); err != nil {
		s.t.Error(err)
	}
	s.node.Store(&node{hub, b})
}

func (s *site) stop() {
	n := s.node.Load()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(n.hub.Close(ctx), n.bus.Shutdown(ctx)); err != nil {
		s.t.Error(err)
	}
}

// control does what a page asks for.
func (s *site) control(w http.ResponseWriter, r *http.Request) {
	n := s.node.Load()
	switch r.PathValue("do") {
	case "publish":
		percent, _ := strconv.Atoi(r.FormValue("percent"))
		if err := n.bus.Publish(r.Context(), progress{r.FormValue("document"), percent}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	case "cut":
		s.door.Lock() // until "open": what is published meanwhile is missed
		s.live.Range(func(conn, _ any) bool {
			if conn, ok := conn.(net.Conn); ok && r.Context().Value(connKey{}) != conn {
				_ = conn.Close()
			}
			s.live.Delete(conn)
			return true
		})
	case "open":
		s.door.Unlock()
	case "restart":
		s.startNode()
		ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
		defer cancel()
		if err := errors.Join(n.hub.Close(ctx), n.bus.Shutdown(ctx)); err != nil {
			s.t.Error(err)
		}
	}
}

// result is what the scenario returns.
type result struct {
	Error, Via, State string
	Tokens            int
	Events            []string
}

func (r result) check(t *testing.T, via string) {
	t.Helper()
	want := []string{
		"document_1 document.progress 10", "document_1 document.progress 20", "document_1 document.progress 30",
		"document_2 document.progress 50", // and not 40, of the group that was left
	}
	if r.Error != "" || r.Via != via || r.State != "closed" || r.Tokens < 3 || !slices.Equal(r.Events, want) {
		t.Errorf("%+v\nwant, via %s:\n%q", r, via, want)
	}
}

func TestNode(t *testing.T) {
	t.Parallel()
	program := testserver.Node(t)
	for transport, want := range map[string]string{"auto": "websocket", "websocket": "websocket", "sse": "sse"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, false)
			// Node 20 has WebSockets behind a flag, and later ones without.
			cmd := exec.CommandContext(t.Context(), program, "--experimental-websocket", "testdata/node.mjs", s.URL, transport)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			var r result
			if err := json.Unmarshal(out, &r); err != nil {
				t.Fatalf("%v in %s", err, out)
			}
			r.check(t, want)
		})
	}
}

func TestBrowser(t *testing.T) {
	t.Parallel()
	program := testserver.Chromium(t)
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(program), chromedp.NoSandbox) // which root can't have
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer func() {
		_ = chromedp.Cancel(ctx) // waits for the browser to end
		cancel()
	}()
	if err := chromedp.Do(ctx); err != nil { // starts it
		t.Fatal(err)
	}

	for _, test := range []struct {
		transport string
		noSockets bool
		via       string
	}{
		{"auto", false, "websocket"},
		{"auto", true, "sse"}, // falls back
	} {
		s := newSite(t, test.noSockets)
		onPage[result](ctx, t, s.URL, `run("`+test.transport+`")`).check(t, test.via)
	}

	type strange struct{ Socket, Stream string }
	ours, theirs := newSite(t, false), newSite(t, false)
	if got := onPage[strange](ctx, t, theirs.URL, `strange("`+ours.URL+`/live/")`); got != (strange{"refused", "refused"}) {
		t.Errorf("a page of another site: %+v", got)
	}
}

// onPage opens a site's page and returns what a call of its script promises.
func onPage[T any](ctx context.Context, t *testing.T, url, call string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(url), chromedp.Poll[chromedp.Void]("window.ready")); err != nil {
		t.Fatal(err)
	}
	got, err := chromedp.Run(ctx, chromedp.Evaluate[T](call, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

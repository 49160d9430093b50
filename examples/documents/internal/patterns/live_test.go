package patterns

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/gotidings/tidings/realtime"
)

// live starts a hub and returns its URL, and what publishes a job to its clients.
func live(b *testing.B) (url string, publish func(context.Context, Job) error) {
	b.Helper()
	topic := unique()
	events := newBus(b, open(b, "memory://"), topic)
	hub, err := realtime.New(realtime.Config{
		Bus: events, QueueLength: 1024,
		Authenticate: func(*http.Request) (realtime.Principal, error) { return realtime.Principal{ID: "ada"}, nil },
		Authorize:    func(context.Context, realtime.Principal, string) error { return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	realtime.On(hub, func(Job) []string { return []string{"jobs"} })
	if err := events.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(hub)
	b.Cleanup(func() {
		if err := hub.Close(context.Background()); err != nil {
			b.Error(err)
		}
		server.Close()
		if err := events.Shutdown(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return server.URL + "/", func(ctx context.Context, job Job) error { return events.Publish(ctx, job) }
}

// received tells of the job of a message of the hub's protocol, or that the client has joined.
func received(b *testing.B, data []byte, a *arrivals, joined func()) {
	b.Helper()
	var m struct {
		Type  string
		Event struct{ Data Job }
	}
	if err := json.Unmarshal(data, &m); err != nil {
		b.Error(err)
	}
	switch m.Type {
	case "event":
		a.arrived(m.Event.Data.N)
	case "joined":
		joined()
	}
}

// BenchmarkWebSocket publishes in memory, and ends when a client of a WebSocket has the job.
func BenchmarkWebSocket(b *testing.B) {
	url, publish := live(b)
	conn, _, err := websocket.Dial(b.Context(), url, &websocket.DialOptions{Subprotocols: []string{"tidings.v1"}})
	if err != nil {
		b.Fatal(err)
	}
	if err := conn.Write(b.Context(), websocket.MessageText, []byte(`{"join":"jobs"}`)); err != nil {
		b.Fatal(err)
	}
	var a arrivals
	joined := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			_, data, err := conn.Read(context.Background())
			if err != nil {
				return // it was closed
			}
			received(b, data, &a, func() { close(joined) })
		}
	})
	<-joined
	measure(b, func(ctx context.Context, n int64) error { return a.sent(ctx, n, publish) })
	_ = conn.CloseNow() // nothing else is read
	reading.Wait()
}

// BenchmarkSSE is the same with server-sent events.
func BenchmarkSSE(b *testing.B) {
	url, publish := live(b)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"?group=jobs", http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // nothing else is read
	var a arrivals
	joined := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if data, ok := strings.CutPrefix(lines.Text(), "data:"); ok {
				received(b, []byte(data), &a, func() { close(joined) })
			}
		}
	})
	<-joined
	measure(b, func(ctx context.Context, n int64) error { return a.sent(ctx, n, publish) })
	cancel()
	reading.Wait()
}

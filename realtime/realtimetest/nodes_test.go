package realtimetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/realtime"
	"github.com/gotidings/tidings/transports/rabbitmq"
)

// brokerNode is a node with a connection to RabbitMQ of its own, that can be cut.
type brokerNode struct {
	t   *testing.T
	bus *bus.Bus
	hub *realtime.Hub
	*httptest.Server

	network testserver.Network
}

// liveProgress is published under a name of the test's own, since others share the broker.
type liveProgress struct {
	Percent int `json:"percent"`
}

func newBrokerNode(t *testing.T, service string) *brokerNode {
	t.Helper()
	n := &brokerNode{t: t}
	tr, err := rabbitmq.Open(t.Context(), rabbitmq.Config{URLs: []string{testserver.RabbitMQ(t)}, Dial: n.network.Dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	if n.bus, err = bus.New(tr, bus.Config{Source: service}); err != nil {
		t.Fatal(err)
	}
	bus.Register[liveProgress](n.bus, service+".progress")
	n.hub, err = realtime.New(realtime.Config{
		Bus:          n.bus,
		Authenticate: func(*http.Request) (realtime.Principal, error) { return realtime.Principal{ID: "ada"}, nil },
		Authorize:    func(context.Context, realtime.Principal, string) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	realtime.On(n.hub, func(liveProgress) []string { return []string{"document_1"} })
	if err := n.bus.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.Server = httptest.NewServer(n.hub)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(n.hub.Close(ctx), n.bus.Shutdown(ctx)); err != nil {
			t.Error(err)
		}
		n.CloseClientConnections()
		n.Close()
	})
	return n
}

func (n *brokerNode) publish(percent int) {
	n.t.Helper()
	if err := n.bus.Publish(n.t.Context(), liveProgress{percent}); err != nil {
		n.t.Fatal(err)
	}
}

// watcher is a client with server-sent events.
type watcher struct {
	t     *testing.T
	lines *bufio.Scanner
	last  string // id, with which it comes back
}

// watch connects until the node takes it.
func (n *brokerNode) watch(after string) *watcher {
	n.t.Helper()
	client := &http.Client{Timeout: time.Minute} // also of what is read of a stream
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		req, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, n.URL+"/?group=document_1", http.NoBody)
		if err != nil {
			n.t.Fatal(err)
		}
		if after != "" {
			req.Header.Set("Last-Event-ID", after)
		}
		res, err := client.Do(req)
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { _ = res.Body.Close() })
		switch res.StatusCode {
		case http.StatusOK:
			return &watcher{t: n.t, lines: bufio.NewScanner(res.Body)}
		case http.StatusServiceUnavailable:
			<-time.After(10 * time.Millisecond)
		default:
			n.t.Fatalf("status %d", res.StatusCode)
		}
	}
	n.t.Fatal("the node takes nobody")
	return nil
}

// expect reads messages in this order.
func (w *watcher) expect(want ...string) {
	w.t.Helper()
	for _, line := range want {
		if got := w.next(); got != line {
			w.t.Fatalf("received %q, want %q", got, line)
		}
	}
}

func (w *watcher) next() string {
	w.t.Helper()
	for w.lines.Scan() {
		name, value, _ := strings.Cut(w.lines.Text(), ": ")
		switch name {
		case "id":
			w.last = value
		case "data":
			var m struct {
				Type  string
				Code  int
				Event struct{ Data liveProgress }
			}
			if err := json.Unmarshal([]byte(value), &m); err != nil {
				w.t.Fatal(err)
			}
			switch m.Type {
			case "event":
				return fmt.Sprint(m.Event.Data.Percent)
			case "close":
				return fmt.Sprint("close ", m.Code)
			}
			return m.Type
		}
	}
	w.t.Fatalf("the stream has ended: %v", w.lines.Err())
	return ""
}

// Two nodes on RabbitMQ have one audience. Clients of one that loses its broker are sent away:
// on the other they miss nothing, and those that come back to the first are told that they
// have.
func TestNodesOnRabbitMQ(t *testing.T) {
	t.Parallel()
	service := "live" + strings.ToLower(events.NewID()[24:])
	one, two := newBrokerNode(t, service), newBrokerNode(t, service)
	a, b := one.watch(""), two.watch("")
	a.expect("joined")
	b.expect("joined")
	one.publish(10)
	two.publish(20)
	// Of two publishers, nodes see the events in different orders.
	first := map[string]bool{a.next(): true, a.next(): true}
	if !first["10"] || !first["20"] {
		t.Errorf("one node has %v", first)
	}
	if second := (map[string]bool{b.next(): true, b.next(): true}); !second["10"] || !second["20"] {
		t.Errorf("the other node has %v", second)
	}
	two.publish(30)
	a.expect("30")
	b.expect("30")

	one.network.Cut()
	a.expect(fmt.Sprint("close ", realtime.CloseInterrupted))
	two.publish(40)
	b.expect("40")
	moved := two.watch(a.last) // what it has seen in the last seconds comes again, which clients know
	for got := moved.next(); got != "40"; got = moved.next() {
		if got == "reset" || got == "joined" {
			t.Fatalf("a client that went to the other node got %q before what it had missed", got)
		}
	}

	one.network.Restore()
	back := one.watch(a.last)
	back.expect("reset", "joined")
	two.publish(50)
	back.expect("50")
	b.expect("50")
	one.publish(60)
	back.expect("60")
	b.expect("60")
}

package realtime

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/bus/bustest"
)

// progress is an event of a document.
type progress struct {
	Document string `json:"document"`
	Percent  int    `json:"percent"`
	Padding  string `json:"padding,omitempty"`
}

func (progress) EventType() string { return "document.progress" }

func groupsOf(e progress) []string {
	if e.Document == "" {
		return nil
	}
	var groups []string
	for name := range strings.SplitSeq(e.Document, "+") { // of several documents
		groups = append(groups, "document_"+name)
	}
	return groups
}

// node is a hub, on a bus and behind a server of its own.
type node struct {
	t   *testing.T
	hub *Hub
	bus *bustest.Bus
	*server
}

// server is an HTTP server whose connections are pipes: they have no buffers, and time in a
// bubble of synctest goes on while one waits for them.
type server struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (s *server) Accept() (net.Conn, error) {
	select {
	case conn := <-s.conns:
		return conn, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}
func (s *server) Close() error   { return nil }
func (s *server) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (s *server) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, conn := net.Pipe()
	select {
	case s.conns <- conn:
		return client, nil
	case <-s.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// authenticate takes "user" for a token of no end, and "user until <time>".
func authenticate(r *http.Request) (Principal, error) {
	user, until, limited := strings.Cut(BearerToken(r), " until ")
	if user != "ada" && user != "bob" {
		return Principal{}, errors.New("secret reason")
	}
	p := Principal{ID: user}
	if limited {
		var err error
		if p.Expires, err = time.Parse(time.RFC3339, until); err != nil {
			return p, err
		}
	}
	return p, nil
}

// authorize lets everybody into documents, and nobody into document_secret. There are no
// other groups.
func authorize(_ context.Context, _ Principal, group string) error {
	switch {
	case group == "document_secret":
		return ErrForbidden
	case !strings.HasPrefix(group, "document_"):
		return errors.New("there is no such table")
	}
	return nil
}

func newNode(t *testing.T, change func(*Config)) *node {
	t.Helper()
	b := bustest.New(t, bus.Config{})
	n := &node{t: t, bus: b, server: &server{conns: make(chan net.Conn), closed: make(chan struct{})}}
	n.hub = newHub(t, b.Bus, change)
	b.Start()
	srv := &http.Server{Handler: n.hub, ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(n.server)
	}()
	t.Cleanup(func() {
		if err := n.hub.Close(context.Background()); err != nil {
			t.Error(err)
		}
		close(n.closed)
		_ = srv.Close()
		<-ended
	})
	return n
}

func newHub(t *testing.T, b *bus.Bus, change func(*Config)) *Hub {
	t.Helper()
	cfg := Config{Bus: b, Authenticate: authenticate, Authorize: authorize}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	On(h, groupsOf)
	return h
}

func (n *node) client() *http.Client {
	transport := &http.Transport{DialContext: n.dial}
	n.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (n *node) publish(document string, percents ...int) {
	n.t.Helper()
	for _, percent := range percents {
		n.bus.Publish(progress{Document: document, Percent: percent})
	}
	n.bus.Idle()
}

// socket is a client with a WebSocket.
type socket struct {
	t *testing.T
	*websocket.Conn
}

// received is a message of the server.
type received struct {
	Type    string
	Group   string
	ID      string
	Code    any
	Message string
	Event   struct {
		ID, Source, Type, Time string
		Data                   progress
	}
}

// String is the message in short, without ids.
func (r received) String() string {
	switch r.Type {
	case "event":
		return fmt.Sprintf("%s %d", r.Group, r.Event.Data.Percent)
	case "error", "close":
		return fmt.Sprintf("%s %s %v", r.Type, r.Group, r.Code)
	default:
		return r.Type + " " + r.Group
	}
}

func (n *node) connect(token string) *socket {
	n.t.Helper()
	conn, res, err := websocket.Dial(n.t.Context(), "ws://hub/live/", &websocket.DialOptions{
		HTTPClient: n.client(), Subprotocols: []string{subprotocol, bearerOf(token)},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if res.Body != nil {
		n.t.Cleanup(func() { _ = res.Body.Close() })
	}
	n.t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(-1)
	return &socket{n.t, conn}
}

func (s *socket) send(text string) {
	s.t.Helper()
	if err := s.Write(s.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *socket) join(group string) received {
	s.t.Helper()
	s.send(fmt.Sprintf(`{"join":%q}`, group))
	return s.expect("joined " + group)
}

func (s *socket) next() received {
	s.t.Helper()
	_, data, err := s.Read(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return decode(s.t, data)
}

func (s *socket) expect(want string) received {
	s.t.Helper()
	got := s.next()
	if got.String() != want {
		s.t.Fatalf("received %q, want %q", got, want)
	}
	return got
}

// ends reads to the end and returns its close code and reason.
func (s *socket) ends() (code int, reason string) {
	s.t.Helper()
	for {
		if _, _, err := s.Read(s.t.Context()); err != nil {
			var ce websocket.CloseError
			if !errors.As(err, &ce) {
				return 0, err.Error()
			}
			return int(ce.Code), ce.Reason
		}
	}
}

func decode(t *testing.T, data []byte) received {
	t.Helper()
	var r received
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return r
}

// stream is a client with server-sent events.
type stream struct {
	t      *testing.T
	res    *http.Response
	lines  *bufio.Scanner
	cancel func()
}

func (n *node) stream(after string, groups ...string) *stream {
	n.t.Helper()
	s := n.get("ada", after, "/live/?group="+strings.Join(groups, "&group="))
	if s.res.StatusCode != http.StatusOK {
		n.t.Fatalf("status %d", s.res.StatusCode)
	}
	return s
}

func (n *node) get(token, after, path string, header ...string) *stream {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hub"+path, http.NoBody)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := n.client().Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		cancel()
		_ = res.Body.Close()
	})
	return &stream{t: n.t, res: res, lines: bufio.NewScanner(res.Body), cancel: cancel}
}

// next returns the next message and the id that an EventSource would keep.
func (s *stream) next() (r received, id string) {
	s.t.Helper()
	for s.lines.Scan() {
		switch name, value, _ := strings.Cut(s.lines.Text(), ": "); name {
		case "id":
			id = value
		case "data":
			return decode(s.t, []byte(value)), id
		}
	}
	s.t.Fatalf("the stream has ended: %v", s.lines.Err())
	return received{}, ""
}

func (s *stream) expect(want ...string) (id string) {
	s.t.Helper()
	for _, w := range want {
		got, i := s.next()
		if got.String() != w {
			s.t.Fatalf("received %q, want %q", got, w)
		}
		if i != "" {
			id = i
		}
	}
	return id
}

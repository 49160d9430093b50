package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/coder/websocket"
)

// ErrRefused says that a group can't be joined.
var ErrRefused = errors.New("refused")

// Live is a connection to the live updates: what the page has, without a page. Its methods
// may be called concurrently.
type Live struct {
	conn *websocket.Conn
	from string        // position at which the connection began
	read chan struct{} // closed when nothing is read any more

	mu      sync.Mutex        // guards what follows
	joined  map[string]error  // groups, with why they can't be joined
	final   map[string]string // the last event's type by document
	changed chan struct{}     // closed with the next change
	err     error             // why nothing is read any more
}

// message is what the server sends; package realtime has the protocol.
type message struct {
	Type, Group, Code, ID string
	Event                 struct {
		Type string
		Data struct{ DocumentID string }
	}
}

// Dial connects to the live updates at a base URL, and joins a group: that of the user's new
// documents. A nil client means http.DefaultClient.
func Dial(ctx context.Context, base, token, group string, client *http.Client) (*Live, error) {
	conn, _, err := websocket.Dial(ctx, base+"/live/", &websocket.DialOptions{
		HTTPClient:   client,
		Subprotocols: []string{"tidings.v1", "bearer." + base64.RawURLEncoding.EncodeToString([]byte(token))},
	})
	if err != nil {
		return nil, err
	}
	l := &Live{
		conn: conn, read: make(chan struct{}), changed: make(chan struct{}),
		joined: make(map[string]error), final: make(map[string]string),
	}
	err = l.send(ctx, map[string]string{"join": group})
	if err == nil {
		var m message
		m, err = receive(ctx, conn)
		if err == nil && m.Type != "joined" {
			err = fmt.Errorf("group %s: %w: %s", group, ErrRefused, m.Code)
		}
		l.from = m.ID
	}
	if err != nil {
		return nil, errors.Join(err, conn.CloseNow())
	}
	go l.readAll()
	return l, nil
}

// Join joins a group, and waits until it is in. What has happened there since the connection
// began comes as well, so that nothing is missed between a submission and this call.
func (l *Live) Join(ctx context.Context, group string) error {
	l.mu.Lock()
	delete(l.joined, group)
	l.mu.Unlock()
	if err := l.send(ctx, map[string]string{"join": group, "after": l.from}); err != nil {
		return err
	}
	var refused error
	err := l.wait(ctx, func() (ok bool) {
		refused, ok = l.joined[group]
		return ok
	})
	return errors.Join(err, refused)
}

// Leave leaves a group.
func (l *Live) Leave(ctx context.Context, group string) error {
	return l.send(ctx, map[string]string{"leave": group})
}

// Final waits until the last update of a document has come, and returns its type:
// "document.processed" or "document.failed".
func (l *Live) Final(ctx context.Context, id string) (event string, err error) {
	err = l.wait(ctx, func() bool {
		event = l.final[id]
		return event != ""
	})
	return event, err
}

// wait returns when something is true, which is asked with mu held.
func (l *Live) wait(ctx context.Context, is func() bool) error {
	for {
		l.mu.Lock()
		done, changed, err := is(), l.changed, l.err
		l.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends the connection.
func (l *Live) Close() error {
	err := l.conn.Close(websocket.StatusNormalClosure, "")
	<-l.read
	return err
}

func (l *Live) send(ctx context.Context, m any) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return l.conn.Write(ctx, websocket.MessageText, data)
}

func receive(ctx context.Context, conn *websocket.Conn) (m message, err error) {
	_, data, err := conn.Read(ctx)
	if err != nil {
		return m, err
	}
	err = json.Unmarshal(data, &m)
	return m, err
}

// readAll ends with the connection.
func (l *Live) readAll() {
	defer close(l.read)
	for {
		m, err := receive(context.Background(), l.conn)
		l.take(m, err)
		if err != nil {
			return
		}
	}
}

func (l *Live) take(m message, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	switch m.Type {
	case "joined":
		l.joined[m.Group] = nil
	case "error":
		l.joined[m.Group] = fmt.Errorf("group %s: %w: %s", m.Group, ErrRefused, m.Code)
	case "event":
		if m.Event.Type == "document.processed" || m.Event.Type == "document.failed" {
			l.final[m.Event.Data.DocumentID] = m.Event.Type
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

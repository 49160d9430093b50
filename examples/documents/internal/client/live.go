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

// Live is a connection to the live updates: what the page has, without a page. Its methods
// may be called concurrently.
type Live struct {
	conn *websocket.Conn
	read chan struct{} // closed when nothing is read any more

	mu      sync.Mutex // guards what follows
	from    string     // position at which the connection began
	final   map[string]string
	changed chan struct{} // closed with the next change
	err     error
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
// documents.
func Dial(ctx context.Context, base, token, group string, client *http.Client) (*Live, error) {
	conn, resp, err := websocket.Dial(ctx, base+"/live/", &websocket.DialOptions{
		HTTPClient:   client,
		Subprotocols: []string{"tidings.v1", "bearer." + base64.RawURLEncoding.EncodeToString([]byte(token))},
	})
	if err != nil {
		return nil, err
	}
	if resp.Body != nil {
		_ = resp.Body.Close() // it has none
	}
	l := &Live{conn: conn, read: make(chan struct{}), final: make(map[string]string), changed: make(chan struct{})}
	err = l.send(ctx, map[string]string{"join": group})
	if err == nil {
		var m message
		m, err = receive(ctx, conn)
		if err == nil && m.Type != "joined" {
			err = fmt.Errorf("live updates: group %s: %s %s", group, m.Type, m.Code)
		}
		l.from = m.ID
	}
	if err != nil {
		return nil, errors.Join(err, conn.CloseNow())
	}
	go l.readAll()
	return l, nil
}

// Follow joins the group of a document. What has happened to it since the connection began
// comes as well, so that nothing is missed between its submission and this call.
func (l *Live) Follow(ctx context.Context, group string) error {
	return l.send(ctx, map[string]string{"join": group, "after": l.from})
}

// Leave leaves a group.
func (l *Live) Leave(ctx context.Context, group string) error {
	return l.send(ctx, map[string]string{"leave": group})
}

// Final waits until the last update of a document has come, and returns its type:
// "document.processed" or "document.failed".
func (l *Live) Final(ctx context.Context, id string) (string, error) {
	for {
		l.mu.Lock()
		event, changed, err := l.final[id], l.changed, l.err
		l.mu.Unlock()
		switch {
		case event != "":
			return event, nil
		case err != nil:
			return "", err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", ctx.Err()
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
	return m, json.Unmarshal(data, &m)
}

// readAll ends with the connection.
func (l *Live) readAll() {
	defer close(l.read)
	for {
		m, err := receive(context.Background(), l.conn)
		l.mu.Lock()
		final := m.Event.Type == "document.processed" || m.Event.Type == "document.failed"
		if m.Type == "event" && final {
			l.final[m.Event.Data.DocumentID] = m.Event.Type
		}
		if err != nil {
			l.err = err
		}
		if final || err != nil {
			close(l.changed)
			l.changed = make(chan struct{})
		}
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

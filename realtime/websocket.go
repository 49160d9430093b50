package realtime

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// serveWebSocket serves a client with two goroutines: this one reads, the other writes.
// While a ping waits for its answer there is a third.
func (h *Hub) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	p, code, why := h.authenticate(r)
	var c *client
	if code == 0 {
		var err error
		if c, err = h.register(p); err != nil {
			refuseClient(w, err)
			return
		}
		defer h.serving.Done()
		defer h.end(c, 0, "") // whatever happens, it is in no group when this returns
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // originAllowed has seen to that, for both protocols in one way
	})
	if err != nil {
		return // it has answered
	}
	defer conn.CloseNow() //nolint:errcheck // nothing more is to be sent
	if code != 0 {
		// A browser does not tell a page the status of an upgrade that was refused, so
		// it is told by the close code.
		_ = conn.Close(websocket.StatusCode(code), why)
		return
	}
	// The request's context is of no use after the upgrade.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	h.mu.Lock()
	c.abort = cancel
	h.mu.Unlock()

	conn.SetReadLimit(int64(h.cfg.MaxFrameBytes))
	var writer sync.WaitGroup
	writer.Go(func() { h.writeWebSocket(ctx, cancel, conn, c) })
	h.readWebSocket(ctx, conn, c)
	writer.Wait()
}

// readWebSocket does what the client asks for, until the connection ends.
func (h *Hub) readWebSocket(ctx context.Context, conn *websocket.Conn, c *client) {
	for {
		kind, data, err := conn.Read(ctx)
		if err != nil {
			h.end(c, 0, "") // also of a message that is too large: conn has told the client
			return
		}
		select {
		case <-c.gone:
			continue // until the close handshake is done
		default:
		}
		if kind != websocket.MessageText {
			h.end(c, CloseBadMessage, "bad message: it is binary")
			continue
		}
		req, err := parseRequest(data)
		if err != nil {
			h.end(c, CloseBadMessage, "bad message: "+err.Error())
			continue
		}
		h.handle(ctx, c, req)
	}
}

func (h *Hub) handle(ctx context.Context, c *client, req request) {
	switch group := req.Join; {
	case req.Leave != "":
		h.leave(c, truncate(req.Leave))
	case !validGroup(group):
		h.push(c, refusal(errorBadGroup, group))
	case h.full(c, group):
		h.push(c, refusal(errorTooManyGroups, group))
	case !h.authorized(ctx, c, group):
		h.push(c, refusal(errorForbidden, group))
	default:
		h.join(c, []string{group}, req.After)
	}
}

// writeWebSocket writes to the client until it is to end, and then the reason.
func (h *Hub) writeWebSocket(ctx context.Context, cancel func(), conn *websocket.Conn, c *client) {
	var pings sync.WaitGroup
	var pinging atomic.Bool
	defer pings.Wait()
	ticker := time.NewTicker(h.cfg.PingInterval)
	defer ticker.Stop()
	expired, stop := expiry(c.principal)
	defer stop()
	write := func(msg *message) error {
		ctx, done := context.WithTimeout(ctx, h.cfg.WriteTimeout)
		defer done()
		return conn.Write(ctx, websocket.MessageText, msg.data)
	}
	for {
		select {
		case <-c.gone:
			h.closeWebSocket(ctx, conn, c)
			return
		case msg := <-c.queue:
			if c.send(msg, write) != nil {
				h.end(c, 0, "")
			}
		case <-expired:
			h.end(c, CloseExpired, "the token has expired")
		case <-ticker.C:
			if pinging.Swap(true) {
				continue
			}
			pings.Go(func() {
				defer pinging.Store(false)
				ctx, done := context.WithTimeout(ctx, h.cfg.WriteTimeout)
				defer done()
				if conn.Ping(ctx) != nil {
					h.end(c, closeUnanswered, "no answer to a ping")
					cancel()
				}
			})
		}
	}
}

// closeWebSocket tells the client why the connection ends, unless it has ended it, and
// waits for its answer for some seconds.
func (h *Hub) closeWebSocket(ctx context.Context, conn *websocket.Conn, c *client) {
	if c.code == 0 {
		_ = conn.CloseNow()
		return
	}
	h.cfg.Logger.InfoContext(ctx, "closing a client's connection", "principal", c.principal.ID, "code", c.code, "reason", c.reason)
	_ = conn.Close(websocket.StatusCode(c.code), c.reason)
}

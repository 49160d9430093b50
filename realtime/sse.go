package realtime

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// retryMillis is what a browser's EventSource waits before it connects again.
const retryMillis = 2000

// serveEvents serves a stream of server-sent events, as the HTML standard has them
// (https://html.spec.whatwg.org/multipage/server-sent-events.html): of the groups in the
// query, group=a&group=b.
func (h *Hub) serveEvents(w http.ResponseWriter, r *http.Request) {
	p, code, why := h.authenticate(r)
	if code != 0 {
		w.Header().Set("WWW-Authenticate", "Bearer")
		name := "unauthorized"
		if code == CloseExpired {
			name = "expired"
		}
		refuse(w, http.StatusUnauthorized, name, why)
		return
	}
	groups := r.URL.Query()["group"]
	slices.Sort(groups)
	groups = slices.Compact(groups)
	switch {
	case len(groups) == 0:
		refuse(w, http.StatusBadRequest, "no_group", "name the groups in the query: ?group=a&group=b")
		return
	case len(groups) > h.cfg.MaxGroups:
		refuse(w, http.StatusBadRequest, errorTooManyGroups, fmt.Sprintf("you may be in %d groups at most", h.cfg.MaxGroups))
		return
	case !allValid(groups):
		refuse(w, http.StatusBadRequest, errorBadGroup, errorTexts[errorBadGroup])
		return
	}
	c, err := h.register(p)
	if err != nil {
		refuseClient(w, err)
		return
	}
	defer h.serving.Done()
	defer h.end(c, 0, "")
	var allowed []string
	for _, group := range groups {
		if h.authorized(r.Context(), c, group) {
			allowed = append(allowed, group)
		} else {
			h.push(c, refusal(errorForbidden, group))
		}
	}
	if len(allowed) == 0 {
		refuse(w, http.StatusForbidden, errorForbidden, errorTexts[errorForbidden])
		return
	}
	after := r.Header.Get("Last-Event-ID")
	h.join(c, allowed, after)
	h.stream(w, r, c)
}

func allValid(groups []string) bool {
	for _, group := range groups {
		if !validGroup(group) {
			return false
		}
	}
	return true
}

// stream writes to the client until it is to end, and then the reason.
func (h *Hub) stream(w http.ResponseWriter, r *http.Request, c *client) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would collect them
	control := http.NewResponseController(w)
	write := func(format string, args ...any) error {
		if err := control.SetWriteDeadline(time.Now().Add(h.cfg.WriteTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return err
		}
		return control.Flush()
	}
	send := func(msg *message) error {
		kind := msg.kind
		if kind == "" {
			kind = "message" // what an EventSource's onmessage gets
		}
		if msg.id == "" {
			return write("event: %s\ndata: %s\n\n", kind, msg.data)
		}
		return write("id: %s\nevent: %s\ndata: %s\n\n", msg.id, kind, msg.data)
	}
	ticker := time.NewTicker(h.cfg.PingInterval)
	defer ticker.Stop()
	expired, stop := expiry(c.principal)
	defer stop()
	err := write("retry: %d\n\n", retryMillis)
	for err == nil {
		select {
		case <-r.Context().Done():
			return
		case <-c.gone:
			h.cfg.Logger.InfoContext(r.Context(), "closing a client's stream", "principal", c.principal.ID, "code", c.code, "reason", c.reason)
			_ = send(answer{Type: "close", Code: c.code, Message: c.reason}.message())
			return
		case msg := <-c.queue:
			err = c.send(msg, send)
		case <-expired:
			h.end(c, CloseExpired, "the token has expired")
		case <-ticker.C:
			err = write(":\n\n")
		}
	}
}

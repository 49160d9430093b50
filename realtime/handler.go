package realtime

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// bearerPrefix begins the subprotocol that carries a token: browsers can't give a WebSocket
// headers, and the addresses of requests end up in logs.
const bearerPrefix = "bearer."

// BearerToken returns the token of a request: that of the Authorization header, or the one
// that the JavaScript client sends as a WebSocket subprotocol. Empty: there is none.
func BearerToken(r *http.Request) string {
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(line, ",") {
			if encoded, ok := strings.CutPrefix(strings.TrimSpace(name), bearerPrefix); ok {
				token, err := base64.RawURLEncoding.DecodeString(encoded)
				if err == nil {
					return string(token)
				}
			}
		}
	}
	return ""
}

// ServeHTTP serves clients: a WebSocket when one is asked for, the JavaScript client when
// the path ends in its name, and otherwise server-sent events.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if name := path.Base(r.URL.Path); name == clientName {
		serveClient(w, r)
		return
	}
	w.Header().Add("Vary", "Origin")
	allowed := h.originAllowed(r)
	if allowed && r.Header.Get("Origin") != "" {
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Set("Access-Control-Allow-Credentials", "true")
	}
	switch {
	case !allowed:
		h.cfg.Logger.WarnContext(r.Context(), "refused a page of another site", "origin", truncate(r.Header.Get("Origin")))
		refuse(w, http.StatusForbidden, "origin", "pages of this site may not connect")
	case r.Method == http.MethodOptions: // of a page of another origin that is allowed, before it sends headers
		w.Header().Set("Access-Control-Allow-Methods", "GET")
		w.Header().Set("Access-Control-Allow-Headers", "Authorization, Last-Event-ID")
		w.WriteHeader(http.StatusNoContent)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", "GET, OPTIONS")
		refuse(w, http.StatusMethodNotAllowed, "method", "use GET")
	case strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		h.serveWebSocket(w, r)
	default:
		h.serveEvents(w, r)
	}
}

// originAllowed reports whether the page that makes a request may. A request without an
// origin comes from no page, or, where it is not for a WebSocket, from one of the same site.
func (h *Hub) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return r.Header.Get("Sec-Fetch-Site") != "cross-site"
	}
	if _, ok := h.origins[strings.ToLower(origin)]; ok {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// authenticate says who makes a request, or the close code and the text that refuse it.
func (h *Hub) authenticate(r *http.Request) (p Principal, code int, why string) {
	p, err := h.cfg.Authenticate(r)
	if err != nil {
		h.cfg.Logger.InfoContext(r.Context(), "refused a client that is not authenticated", "error", err)
		return p, CloseUnauthorized, "unauthorized: the token is missing or wrong"
	}
	if !p.Expires.IsZero() && !p.Expires.After(time.Now()) {
		return p, CloseExpired, "the token has expired"
	}
	return p, 0, ""
}

// refuse answers a request that is not served.
func refuse(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer{Type: "error", Code: code, Message: text})
}

// refuseClient answers a request for which register has no room.
func refuseClient(w http.ResponseWriter, err error) {
	w.Header().Set("Retry-After", "5")
	if errors.Is(err, errClosed) {
		refuse(w, http.StatusServiceUnavailable, "shutdown", "the server is shutting down")
		return
	}
	if errors.Is(err, errLost) {
		refuse(w, http.StatusServiceUnavailable, "interrupted", "this node has lost its broker")
		return
	}
	refuse(w, http.StatusServiceUnavailable, "full", "the server has as many clients as it may have")
}

// expiry returns a channel that tells the end of a principal's token, and what stops it.
func expiry(p Principal) (<-chan time.Time, func() bool) {
	if p.Expires.IsZero() {
		return nil, func() bool { return false }
	}
	t := time.NewTimer(time.Until(p.Expires))
	return t.C, t.Stop
}

package realtime

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestRefusedGroups(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(c *Config) { c.MaxGroups = 2 })
	s := n.connect("ada")
	s.send(`{"join":"document_secret"}`)
	forbidden := s.expect("error document_secret forbidden")
	s.send(`{"join":"nonsense"}`)
	unknown := s.expect("error nonsense forbidden")
	if forbidden.Message != unknown.Message {
		t.Errorf("%q differs from %q: it tells which group exists", forbidden.Message, unknown.Message)
	}
	s.send(`{"join":"a\u0000b"}`)
	s.expect("error a\x00b bad_group")
	s.send(`{"join":"` + strings.Repeat("x", 201) + `"}`)
	s.expect("error " + strings.Repeat("x", 200) + "… bad_group")
	s.join("document_1")
	s.join("document_2")
	s.join("document_2") // again is no further one
	s.send(`{"join":"document_3"}`)
	s.expect("error document_3 too_many_groups")
	n.hub.publish(md("1"), []string{"document_secret", "document_3", "nonsense"}, []byte(`{}`))
	n.publish("1", 7)
	s.expect("document_1 7") // and it goes on
}

func TestBadFramesEndTheirConnectionOnly(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	other := n.connect("bob")
	other.join("document_1")
	for name, test := range map[string]struct {
		kind websocket.MessageType
		data string
		code int
	}{
		"not JSON":      {websocket.MessageText, "garbage secret-token", CloseBadMessage},
		"another JSON":  {websocket.MessageText, `[1,2]`, CloseBadMessage},
		"no action":     {websocket.MessageText, `{}`, CloseBadMessage},
		"two actions":   {websocket.MessageText, `{"join":"a","leave":"b"}`, CloseBadMessage},
		"a wrong type":  {websocket.MessageText, `{"join":7}`, CloseBadMessage},
		"invalid UTF-8": {websocket.MessageText, "{\"join\":\"\xff\"}", CloseBadMessage},
		"binary":        {websocket.MessageBinary, `{"join":"document_1"}`, CloseBadMessage},
		"too large":     {websocket.MessageText, `{"join":"` + strings.Repeat("x", 5000) + `"}`, int(websocket.StatusMessageTooBig)},
	} {
		s := n.connect("ada")
		if err := s.Write(t.Context(), test.kind, []byte(test.data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if code, reason := s.ends(); code != test.code || strings.Contains(reason, "secret") {
			t.Errorf("%s: ended with %d %q, want %d", name, code, reason, test.code)
		}
	}
	n.publish("1", 7)
	other.expect("document_1 7")
}

func TestWhoIsNotAuthenticated(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	past := "ada until " + time.Now().Add(-time.Second).Format(time.RFC3339)
	for name, test := range map[string]struct {
		token, code string
		close       int
	}{
		"no token":         {"", "unauthorized", CloseUnauthorized},
		"a wrong one":      {"eve", "unauthorized", CloseUnauthorized},
		"one that is over": {past, "expired", CloseExpired},
	} {
		if code, reason := n.connect(test.token).ends(); code != test.close || strings.Contains(reason, "secret") {
			t.Errorf("%s: ended with %d %q, want %d", name, code, reason, test.close)
		}
		status, body := n.status(n.get(test.token, "", "/live/?group=document_1"))
		if status != http.StatusUnauthorized || body.Code != test.code || strings.Contains(body.Message, "secret") {
			t.Errorf("%s: status %d, %+v", name, status, body)
		}
	}
	if s := n.hub.Stats(); s.Clients != 0 {
		t.Errorf("%d clients", s.Clients)
	}
}

func (n *node) status(s *stream) (int, received) {
	n.t.Helper()
	body, err := io.ReadAll(s.res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	var r received
	_ = json.Unmarshal(body, &r)
	return s.res.StatusCode, r
}

func TestPagesOfOtherSites(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(c *Config) { c.Origins = []string{"https://app.example"} })
	for origin, allowed := range map[string]bool{
		"http://hub":               true,
		"https://app.example":      true,
		"https://APP.example":      true,
		"http://app.example":       false,
		"https://evil.app.example": false,
		"https://hub.evil":         false,
		"null":                     false,
		"hub":                      false,
	} {
		conn, res, err := websocket.Dial(t.Context(), "ws://hub/live/", &websocket.DialOptions{
			HTTPClient: n.client(), HTTPHeader: http.Header{"Origin": {origin}}, Subprotocols: []string{subprotocol, bearerOf("ada")},
		})
		if (err == nil) != allowed || !allowed && res.StatusCode != http.StatusForbidden {
			t.Errorf("WebSocket of %s: %v", origin, err)
		}
		if err == nil {
			_ = conn.CloseNow()
		}
		s := n.get("ada", "", "/live/?group=document_1", "Origin", origin)
		if allowed {
			s.expect("joined document_1")
			if got := s.res.Header.Get("Access-Control-Allow-Origin"); got != origin {
				t.Errorf("stream of %s: allowed origin %q", origin, got)
			}
		} else if status, body := n.status(s); status != http.StatusForbidden || body.Code != "origin" || s.res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("stream of %s: status %d, %+v", origin, status, body)
		}
	}
	// Of a request that is no cross-origin one to the browser, such as of an <img>.
	if status, _ := n.status(n.get("ada", "", "/live/?group=document_1", "Sec-Fetch-Site", "cross-site")); status != http.StatusForbidden {
		t.Errorf("a request of another site without its origin: status %d", status)
	}
}

func TestBadStreams(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(c *Config) { c.MaxGroups = 2 })
	for query, want := range map[string]struct {
		status int
		code   string
	}{
		"":                                   {400, "no_group"},
		"group=a&group=b&group=c":            {400, errorTooManyGroups},
		"group=" + strings.Repeat("x", 201):  {400, errorBadGroup},
		"group=%00":                          {400, errorBadGroup},
		"group=%ff":                          {400, errorBadGroup},
		"group=document_secret":              {403, errorForbidden},
		"group=document_secret&group=absent": {403, errorForbidden},
	} {
		if status, body := n.status(n.get("ada", "", "/live/?"+query)); status != want.status || body.Code != want.code {
			t.Errorf("%s: status %d, %+v; want %v", query, status, body, want)
		}
	}
	n.stream("", "document_secret", "document_1").expect("error document_secret forbidden", "joined document_1")
	for i, after := range []string{"x", ".", "..", "a.b.c", n.hub.history.node + ".99999999999999999999.", n.hub.history.node + ".7.", "ü"} {
		group := "document_" + strconv.Itoa(i)
		n.stream(after, group).expect("reset "+group, "joined "+group)
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{
		`{"join":"document_1"}`, `{"join":"a","after":"x.1.y"}`, `{"leave":"a"}`, `{"join":"a","leave":"b"}`,
		`{}`, `[]`, `null`, `{"join":null}`, "\xff", `{"join":"\ud800"}`, `{"JOIN":"x"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRequest(data)
		if err != nil {
			if r != (request{}) {
				t.Errorf("%q: %+v with an error", data, r)
			}
			return
		}
		if (r.Join == "") == (r.Leave == "") {
			t.Errorf("%q: %+v asks for nothing, or for two things", data, r)
		}
		for _, name := range []string{r.Join, r.Leave} {
			for _, code := range []string{errorForbidden, errorBadGroup} {
				if msg := refusal(code, truncate(name)); !json.Valid(msg.data) || strings.ContainsAny(string(msg.data), "\r\n") {
					t.Errorf("%q makes the answer %q", data, msg.data)
				}
			}
			if validGroup(name) && !json.Valid(eventMessage("n.1.k", name, []byte("{}")).data) {
				t.Errorf("%q makes an event that is not JSON", data)
			}
		}
		newHistory("n", 1, 1).find(r.After)
	})
}

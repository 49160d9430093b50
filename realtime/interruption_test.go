package realtime

import (
	"net/http"
	"testing"

	"github.com/coder/websocket"
)

// A node that loses its subscription sends its clients away and takes none, until it is there
// again. Who comes back with a position of before gets a reset, for what came in between.
func TestInterruption(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	socket, stream := n.connect("ada"), n.stream("", "document_1")
	socket.join("document_1")
	stream.expect("joined document_1")
	n.publish("1", 10)
	last := socket.expect("document_1 10").ID
	stream.expect("document_1 10")

	n.hub.interrupted(true)
	if code, reason := socket.ends(); code != CloseInterrupted || reason == "" {
		t.Errorf("the socket ends with %d %q", code, reason)
	}
	if end, _ := stream.next(); end.Type != "close" || end.Code != float64(CloseInterrupted) {
		t.Errorf("the stream ends with %s", end)
	}
	if s := n.get("ada", "", "/live/?group=document_1"); s.res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a stream meanwhile has the status %d", s.res.StatusCode)
	}
	conn, res, err := websocket.Dial(t.Context(), "ws://hub/live/", &websocket.DialOptions{HTTPClient: n.client(), Subprotocols: []string{subprotocol, bearerOf("ada")}})
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a socket meanwhile: connected %t, %v", conn != nil, err)
	}
	if n.hub.Stats().Clients != 0 {
		t.Errorf("%d clients are there", n.hub.Stats().Clients)
	}

	n.hub.interrupted(false)
	n.stream(last, "document_1").expect("reset document_1", "joined document_1")
	socket = n.connect("ada")
	socket.join("document_1")
	n.publish("1", 20)
	last = socket.expect("document_1 20").ID
	n.stream(last, "document_1").expect("joined document_1") // a position of now is good
}

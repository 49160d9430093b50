package main

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	pb "github.com/gotidings/tidings/examples/documents/internal/grpcapi/documentsv1"
)

// largest is the largest content there is. As JSON it has six times as many bytes.
var largest = strings.Repeat("\x01", document.MaxContent)

// The largest document is processed, by all services, however it comes; and one that is
// larger is refused.
func TestLargest(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t, "-try-timeout", "1m")) // the race detector is slow with so much
	ada := s.connect(adasToken, "ada")
	if d := ada.final(ada.submit(t.Context(), "largest.txt", largest)); d.Status != document.Processed || d.Results.Words != 1 || len(d.Results.Degraded) != 0 {
		t.Errorf("document is %+v", d)
	}
	if _, body := s.request(http.MethodGet, "/documents", adasToken, nil); len(body) > 4<<10 {
		t.Errorf("the list of one document has %d bytes", len(body))
	}
	c := s.grpcClient(adasToken)
	answer, err := c.ProcessDocument(t.Context(), &pb.ProcessDocumentRequest{Name: "largest.txt", Content: strings.Repeat("a", document.MaxContent)})
	if d := answer.GetDocument(); err != nil || d.GetStatus() != pb.Status_STATUS_PROCESSED || len(d.GetResults().GetDegraded()) != 0 {
		t.Errorf("document is %v, %v", d, err)
	}

	for content, want := range map[string]string{
		largest + "\x01": `{"errors":["content is too large: it takes up to 1048576 bytes"]}`,
		strings.Repeat("\x01", document.MaxJSON/6): `{"errors":["the body is too large: it takes up to 6356992 bytes"]}`,
	} {
		code, body := s.request(http.MethodPost, "/documents", adasToken, map[string]string{"name": "a.txt", "content": content})
		if code != http.StatusRequestEntityTooLarge || body != want {
			t.Errorf("%d bytes: %d %s", len(content), code, body)
		}
	}
	if _, err := c.ProcessDocument(t.Context(), &pb.ProcessDocumentRequest{Name: "a.txt", Content: largest + "\x01"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a byte too much by gRPC: %v", err)
	}
}

// A fault of a request is told in the words of the API.
func TestFaultyBodies(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	for body, want := range map[string]string{
		``:                                     "the body is no JSON at byte 0",
		`{"name":"a.txt"`:                      "the body is no JSON at byte 15",
		`{"name":"a.txt"} {}`:                  "the body is no JSON at byte 18",
		`[]`:                                   "the body takes an object",
		`{"name":"a.txt","content":7}`:         "content takes a string",
		`{"name":"a.txt","id":"7"}`:            "id takes a UUID in lower case, or nothing",
		`{"name":"a.txt","content":"a\u0000"}`: "content takes no NUL character, which the database can't keep",
	} {
		code, answer := s.request(http.MethodPost, "/documents", adasToken, body)
		if code != http.StatusBadRequest || answer != `{"errors":["`+want+`"]}` {
			t.Errorf("%s: %d %s", body, code, answer)
		}
	}
}

// An id that can't be one is that of no document, on any database.
func TestStrangeIDs(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t, append(onServers(t), "-role", "api")...))
	for path, want := range map[string]int{
		"/documents/%00":                      http.StatusNotFound,
		"/documents/%ff%fe":                   http.StatusNotFound,
		"/documents/%00/events":               http.StatusNotFound,
		"/documents?before=%00":               http.StatusBadRequest,
		"/documents?before=%ff%fe":            http.StatusBadRequest,
		"/documents?before=" + events.NewID(): http.StatusNotFound,
		"/documents":                          http.StatusOK,
	} {
		if code, body := s.request(http.MethodGet, path, adasToken, nil); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

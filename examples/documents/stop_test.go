package main

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gotidings/tidings/examples/documents/internal/document"
	pb "github.com/gotidings/tidings/examples/documents/internal/grpcapi/documentsv1"
)

// Clients that hold their calls open don't hold up the end: they are cut off in time, and
// what they have submitted stays.
func TestStopWithHeldCalls(t *testing.T) {
	t.Parallel()
	const limit = 4 * time.Second
	s := start(t, newConfig(t, append(onFile(t), "-role", "api", "-shutdown-timeout", limit.String())...))
	c := s.grpcClient(adasToken)
	batch, err := c.BatchProcessDocuments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const documents = 300 // so many that a stream of them stands still while nobody reads it
	for range documents {
		if err := batch.Send(&pb.BatchProcessDocumentsRequest{Name: strings.Repeat("\U0001f4c4", 200), Content: letter}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the documents of the batch", func() bool {
		list, err := s.store.List(t.Context(), document.Query{Owner: "ada", Limit: documents})
		return err == nil && len(list) == documents
	})
	list, err := c.StreamDocuments(t.Context(), &pb.StreamDocumentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := list.Recv(); err != nil {
		t.Fatal(err)
	}
	var dialer net.Dialer
	post, err := dialer.DialContext(t.Context(), "tcp", s.server.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer post.Close() //nolint:errcheck // the server has closed it
	if _, err := io.WriteString(post, "POST /documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+adasToken+"\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(post).ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" { // its body is read
		t.Fatalf("%q, %v", line, err)
	}

	began := time.Now()
	s.end(true) // which fails the test if there is an error
	if took := time.Since(began); took > limit/2 {
		t.Errorf("it took %v of %v to end", took, limit)
	}
	if _, err := batch.CloseAndRecv(); err == nil {
		t.Error("the batch was answered")
	}
}

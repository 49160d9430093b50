package grpcapi_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gotidings/tidings/examples/documents/internal/grpcapi"
	pb "github.com/gotidings/tidings/examples/documents/internal/grpcapi/documentsv1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// flaky is a service that fails a number of times with a code.
type flaky struct {
	pb.UnimplementedDocumentServiceServer

	mu       sync.Mutex // guards what follows
	failures int
	code     codes.Code
	ids      []string // of the documents that it was asked for
	tokens   []string
}

func (f *flaky) ProcessDocument(ctx context.Context, r *pb.ProcessDocumentRequest) (*pb.ProcessDocumentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	f.ids, f.tokens = append(f.ids, r.GetDocumentId()), append(f.tokens, md.Get("authorization")...)
	if len(f.ids) <= f.failures {
		return nil, status.Error(f.code, "a fault")
	}
	return &pb.ProcessDocumentResponse{Document: &pb.Document{Id: r.GetDocumentId()}}, nil
}

func newClient(t *testing.T, f *flaky) *grpcapi.Client {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterDocumentServiceServer(server, f)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	c, err := grpcapi.NewClient(grpcapi.ClientConfig{Target: listener.Addr().String(), Token: "t0ken", Delay: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c
}

// A call that finds nobody is made again, for the same document, with the token once.
func TestRetry(t *testing.T) {
	t.Parallel()
	f := &flaky{failures: 2, code: codes.Unavailable}
	answer, err := newClient(t, f).ProcessDocument(t.Context(), &pb.ProcessDocumentRequest{Name: "a.txt"})
	if err != nil {
		t.Fatal(err)
	}
	id := answer.GetDocument().GetId()
	if len(f.ids) != 3 || id == "" || f.ids[0] != id || f.ids[1] != id {
		t.Errorf("documents are %q", f.ids)
	}
	if len(f.tokens) != 3 || f.tokens[2] != "Bearer t0ken" {
		t.Errorf("tokens are %q", f.tokens)
	}
}

func TestNoRetry(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{codes.InvalidArgument, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Internal} {
		f := &flaky{failures: 1, code: code}
		_, err := newClient(t, f).ProcessDocument(t.Context(), &pb.ProcessDocumentRequest{Name: "a.txt"})
		if status.Code(err) != code || len(f.ids) != 1 {
			t.Errorf("%v after %d calls", err, len(f.ids))
		}
	}
}

// After five failures the service is left alone.
func TestBreaker(t *testing.T) {
	t.Parallel()
	f := &flaky{failures: 100, code: codes.Unavailable}
	c := newClient(t, f)
	for range 3 {
		if _, err := c.ProcessDocument(t.Context(), &pb.ProcessDocumentRequest{Name: "a.txt"}); status.Code(err) != codes.Unavailable {
			t.Errorf("error is %v", err)
		}
	}
	if len(f.ids) != 5 {
		t.Errorf("%d calls were made, want 5", len(f.ids))
	}
}

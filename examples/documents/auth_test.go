package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/client"
	"github.com/gotidings/tidings/examples/documents/internal/grpcapi"
	pb "github.com/gotidings/tidings/examples/documents/internal/grpcapi/documentsv1"
)

// grpcClient returns a client of the system's gRPC service.
func (s *system) grpcClient(token string) *grpcapi.Client {
	s.t.Helper()
	c, err := grpcapi.NewClient(grpcapi.ClientConfig{Target: s.api.grpcListener.Addr().String(), Token: token})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() }) // nothing depends on it
	return c
}

func TestWithoutToken(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	for name, token := range map[string]string{"missing": "", "wrong": "adas-toke", "of nobody": "somebodys-token"} {
		for _, call := range []string{
			"POST /documents", "GET /documents", "GET /documents/1", "GET /documents/1/events",
			"GET /statistics", "GET /dependencies", "GET /me", "DELETE /documents/1",
		} {
			method, path, _ := strings.Cut(call, " ")
			if code, body := s.request(method, path, token, map[string]string{"name": "a.txt"}); code != http.StatusUnauthorized {
				t.Errorf("%s, token %s: %d %s", call, name, code, body)
			}
		}
		if _, err := client.Dial(t.Context(), s.server.url(), token, "user_ada", nil); err == nil {
			t.Errorf("live updates, token %s: connected", name)
		}

		c := s.grpcClient(token)
		_, err := c.ProcessDocument(t.Context(), &pb.ProcessDocumentRequest{Name: "a.txt"})
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("ProcessDocument, token %s: %v", name, err)
		}
		stream, err := c.StreamDocuments(t.Context(), &pb.StreamDocumentsRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("StreamDocuments, token %s: %v", name, err)
		}
		batch, err := c.BatchProcessDocuments(t.Context())
		if err == nil {
			_, err = batch.CloseAndRecv()
		}
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("BatchProcessDocuments, token %s: %v", name, err)
		}
	}
	if list, err := s.store.List(t.Context(), query("ada")); err != nil || len(list) != 0 {
		t.Errorf("there are documents: %v, %v", list, err)
	}
}

// The services take signed requests only.
func TestWithoutSignature(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	for _, path := range []string{"/analysis/extract", "/payments/api/payments"} {
		for _, authorization := range []string{"", "Bearer " + adasToken} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.services.addresses()[0]+path, strings.NewReader(`{}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", authorization)
			resp, err := s.clients.transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s with %q: %s, %v", path, authorization, resp.Status, err)
			}
		}
	}
}

// What is somebody else's is answered as what does not exist.
func TestOfSomebodyElse(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	ada, bob := s.connect(adasToken, "ada"), s.connect(bobsToken, "bob")
	id := ada.submit(t.Context(), "diary.txt", "Dear diary.")
	ada.final(id)
	for _, path := range []string{"/documents/", "/documents/%/events"} {
		of := func(id string) string { return strings.Replace(path, "%", id, 1) }
		if path == "/documents/" {
			of = func(id string) string { return path + id }
		}
		code, body := s.request(http.MethodGet, of(id), bobsToken, nil)
		missing, nobodys := s.request(http.MethodGet, of(events.NewID()), bobsToken, nil)
		if code != http.StatusNotFound || missing != code || nobodys != body {
			t.Errorf("%s: %d %s; one that does not exist: %d %s", path, code, body, missing, nobodys)
		}
	}
	if _, body := s.request(http.MethodGet, "/documents", bobsToken, nil); body != `{"documents":[]}` {
		t.Errorf("Bob's documents: %s", body)
	}
	if code, body := s.request(http.MethodPost, "/documents", bobsToken, map[string]string{"id": id, "name": "x"}); code != http.StatusConflict {
		t.Errorf("Ada's id: %d %s", code, body)
	}

	for _, group := range []string{"document_" + id, "document_" + events.NewID(), "user_ada", "user_", "everything"} {
		if err := bob.live.Join(t.Context(), group); err == nil || !strings.Contains(err.Error(), "forbidden") {
			t.Errorf("Bob joins %s: %v", group, err)
		}
	}
	if err := ada.live.Join(t.Context(), "document_"+id); err != nil {
		t.Errorf("Ada joins her document's group: %v", err)
	}

	c := s.grpcClient(bobsToken)
	stream, err := c.StreamDocuments(t.Context(), &pb.StreamDocumentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := stream.Recv(); err != io.EOF { //nolint:errorlint // gRPC says so
		t.Errorf("Bob's documents: %v, %v", d, err)
	}
	if _, err := c.ProcessDocument(t.Context(), &pb.ProcessDocumentRequest{Name: "a.txt", DocumentId: id}); status.Code(err) != codes.AlreadyExists {
		t.Errorf("Ada's id: %v", err)
	}
}

// Probes have no token.
func TestProbes(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	until(t, "the dependencies are checked for the first time", func() bool {
		code, _ := s.request(http.MethodGet, "/readyz", "", nil)
		return code == http.StatusOK
	})
	for _, path := range []string{"/livez", "/readyz", "/"} {
		if code, body := s.request(http.MethodGet, path, "", nil); code != http.StatusOK {
			t.Errorf("GET %s: %d %s", path, code, body)
		}
	}
	answer, err := s.grpcClient("").Health(t.Context())
	if err != nil || answer != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("gRPC health: %v, %v", answer, err)
	}
}

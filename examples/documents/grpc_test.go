package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gotidings/tidings/events"
	pb "github.com/gotidings/tidings/examples/documents/internal/grpcapi/documentsv1"
)

func TestProcessDocument(t *testing.T) {
	t.Parallel()
	c := start(t, newConfig(t)).grpcClient(adasToken)
	answer, err := c.ProcessDocument(t.Context(), &pb.ProcessDocumentRequest{Name: "a.txt", Content: "Dear Ada. All is well."})
	if err != nil {
		t.Fatal(err)
	}
	d := answer.GetDocument()
	if r := d.GetResults(); d.GetStatus() != pb.Status_STATUS_PROCESSED || d.GetProgress() != 100 || r.GetWords() != 5 || r.GetCategory() != "letter" ||
		r.GetSummary() != "Dear Ada." || r.GetPaymentId() == "" || len(r.GetDegraded()) != 0 {
		t.Errorf("document is %v", d)
	}
	again, err := c.ProcessDocument(t.Context(), &pb.ProcessDocumentRequest{Name: "a.txt", DocumentId: d.GetId()})
	if err != nil || again.GetDocument().GetResults().GetPaymentId() != d.GetResults().GetPaymentId() {
		t.Errorf("the same request again: %v, %v", again, err)
	}

	answer, err = c.ProcessDocument(t.Context(), &pb.ProcessDocumentRequest{Name: "empty.txt"})
	if d := answer.GetDocument(); err != nil || d.GetStatus() != pb.Status_STATUS_FAILED || d.GetError() != "extract: rejected: there is no text in the document" {
		t.Errorf("document without a text: %v, %v", answer, err)
	}
	for _, bad := range []*pb.ProcessDocumentRequest{{}, {Name: "a\nb"}, {Name: "a", DocumentId: "7"}, {Name: "a", Content: "\x00"}} {
		if _, err := c.ProcessDocument(t.Context(), bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// Who does not wait for the end gets DEADLINE_EXCEEDED, and the document is processed.
func TestProcessDocumentDeadline(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t, "-shutdown-timeout", "10ms")) // the worker does not wait either
	s.services.analysisFaults.Slow(time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	id := events.NewID()
	_, err := s.grpcClient(adasToken).ProcessDocument(ctx, &pb.ProcessDocumentRequest{Name: "a.txt", Content: "Dear Ada.", DocumentId: id})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("error is %v", err)
	}
	s.services.analysisFaults.Slow(0)
}

func TestStreams(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t))
	c := s.grpcClient(adasToken)
	ada := s.connect(adasToken, "ada")
	batch, err := c.BatchProcessDocuments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const good = 2*20 + 1 // more than two pages of the server
	for i := range good + 1 {
		r := &pb.BatchProcessDocumentsRequest{Name: "a.txt", Content: "Dear Ada."}
		if i == 1 {
			r.Name = ""
		}
		if err := batch.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := batch.CloseAndRecv()
	if err != nil {
		t.Fatal(err)
	}
	if r := answer.GetRejections(); len(r) != 1 || r[0].GetIndex() != 1 || r[0].GetReason() == "" || len(answer.GetDocumentIds()) != good {
		t.Fatalf("%d accepted, rejected %v", len(answer.GetDocumentIds()), r)
	}
	last := answer.GetDocumentIds()[good-1]
	if err := ada.live.Join(t.Context(), "document_"+last); err != nil {
		t.Fatal(err)
	}

	ids := func(r *pb.StreamDocumentsRequest) (ids []string) {
		stream, err := c.StreamDocuments(t.Context(), r)
		for err == nil {
			var d *pb.StreamDocumentsResponse
			if d, err = stream.Recv(); err == nil {
				ids = append(ids, d.GetDocument().GetId())
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%v: %v", r, err)
		}
		return ids
	}
	want := slices.Clone(answer.GetDocumentIds())
	slices.Reverse(want) // the newest first
	if got := ids(&pb.StreamDocumentsRequest{}); !slices.Equal(got, want) {
		t.Errorf("all: %d documents, want %d", len(got), len(want))
	}
	if got := ids(&pb.StreamDocumentsRequest{Limit: 21}); !slices.Equal(got, want[:21]) {
		t.Errorf("limit 21: %d documents", len(got))
	}
	if got := ids(&pb.StreamDocumentsRequest{Status: pb.Status_STATUS_FAILED}); len(got) != 0 {
		t.Errorf("failed: %v", got)
	}
	ada.final(last)
	if got := ids(&pb.StreamDocumentsRequest{Status: pb.Status_STATUS_PROCESSED}); !slices.Contains(got, last) {
		t.Errorf("processed: %d documents, without %s", len(got), last)
	}
}

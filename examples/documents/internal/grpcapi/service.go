// Package grpcapi is the gRPC service of the example, and a client of it.
//
// The code in documentsv1 is generated from proto: go generate ./internal/grpcapi.
package grpcapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gotidings/tidings/examples/documents/internal/document"
	pb "github.com/gotidings/tidings/examples/documents/internal/grpcapi/documentsv1"
	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/examples/documents/internal/watch"
)

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate

// processDeadline bounds ProcessDocument for callers that have no deadline of their own.
const processDeadline = 5 * time.Minute

// page is how many documents are read at a time.
const page = 20

// service implements the service for the user in the context.
type service struct {
	pb.UnimplementedDocumentServiceServer

	store   *document.Store
	watcher *watch.Watcher
	log     *slog.Logger
}

func (s *service) ProcessDocument(ctx context.Context, r *pb.ProcessDocumentRequest) (*pb.ProcessDocumentResponse, error) {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, processDeadline)
		defer cancel()
	}
	d, err := s.submit(ctx, r)
	if err != nil {
		return nil, err
	}
	if d, err = s.watcher.Wait(ctx, d.ID); err != nil {
		return nil, s.refuse(ctx, err)
	}
	return &pb.ProcessDocumentResponse{Document: message(d)}, nil
}

// submission is what both requests have that bring a document.
type submission interface {
	GetDocumentId() string
	GetName() string
	GetContent() string
}

func (s *service) submit(ctx context.Context, r submission) (document.Document, error) {
	d, err := document.New(r.GetDocumentId(), httpauth.Caller(ctx), r.GetName(), r.GetContent(), time.Now())
	if err != nil {
		return d, status.Error(codes.InvalidArgument, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if d, err = s.store.Add(ctx, d); err != nil {
		return d, s.refuse(ctx, err)
	}
	return d, nil
}

func (s *service) StreamDocuments(r *pb.StreamDocumentsRequest, stream pb.DocumentService_StreamDocumentsServer) error {
	ctx := stream.Context()
	q := document.Query{Owner: httpauth.Caller(ctx)}
	if r.GetStatus() != pb.Status_STATUS_UNSPECIFIED {
		q.Status = document.Status(strings.ToLower(strings.TrimPrefix(r.GetStatus().String(), "STATUS_")))
		if !q.Status.Valid() {
			return status.Error(codes.InvalidArgument, "there is no such status")
		}
	}
	left := int(r.GetLimit())
	switch {
	case left < 0:
		return status.Error(codes.InvalidArgument, "limit is negative")
	case left == 0:
		left = math.MaxInt
	}
	for left > 0 {
		q.Limit = min(left, page)
		list, err := s.store.List(ctx, q)
		if err != nil {
			return s.refuse(ctx, err)
		}
		for _, d := range list {
			if err := stream.Send(&pb.StreamDocumentsResponse{Document: message(d)}); err != nil {
				return err
			}
			q.Before = d.ID
		}
		if len(list) < q.Limit {
			return nil
		}
		left -= len(list)
	}
	return nil
}

func (s *service) BatchProcessDocuments(stream pb.DocumentService_BatchProcessDocumentsServer) error {
	var answer pb.BatchProcessDocumentsResponse
	for i := int32(0); ; i++ {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&answer)
		}
		if err != nil {
			return err
		}
		d, err := s.submit(stream.Context(), r)
		switch status.Code(err) {
		case codes.OK:
			answer.DocumentIds = append(answer.DocumentIds, d.ID)
		case codes.InvalidArgument, codes.AlreadyExists: // of this one; the others may be better
			answer.Rejections = append(answer.Rejections, &pb.Rejection{Index: i, Reason: status.Convert(err).Message()})
		default:
			return err
		}
	}
}

// refuse makes the status of an error. What an unexpected one says is for the log only.
func (s *service) refuse(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, document.ErrNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, document.ErrConflict):
		return status.Error(codes.AlreadyExists, "the id is taken")
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	s.log.ErrorContext(ctx, "call failed", "error", err)
	return status.Error(codes.Internal, "something went wrong; try again")
}

func message(d document.Document) *pb.Document {
	degraded := make([]string, len(d.Results.Degraded))
	for i, step := range d.Results.Degraded {
		degraded[i] = string(step)
	}
	return &pb.Document{
		Id: d.ID, Name: d.Name, Status: pb.Status(pb.Status_value["STATUS_"+strings.ToUpper(string(d.Status))]),
		Step: string(d.Step), Progress: int32(d.Progress), Remaining: durationpb.New(d.Remaining),
		Results: &pb.Results{
			Words: int32(min(d.Results.Words, math.MaxInt32)), Category: d.Results.Category, Summary: d.Results.Summary,
			PaymentId: d.Results.PaymentID, Degraded: degraded,
		},
		Error: d.Error, CreatedAt: timestamppb.New(d.CreatedAt), UpdatedAt: timestamppb.New(d.UpdatedAt),
	}
}

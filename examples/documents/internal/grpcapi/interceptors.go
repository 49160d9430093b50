package grpcapi

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"strings"

	"github.com/failsafe-go/failsafe-go/bulkhead"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
)

// authenticate returns a context with the user of a call. Probes of the health service need
// no token.
func authenticate(ctx context.Context, tokens *httpauth.Tokens, method string) (context.Context, error) {
	if strings.HasPrefix(method, "/"+healthpb.Health_ServiceDesc.ServiceName+"/") {
		return ctx, nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	var header string
	if values := md.Get("authorization"); len(values) == 1 {
		header = values[0]
	}
	user, ok := tokens.Name(httpauth.TokenOf(header))
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "the token is missing or wrong")
	}
	return httpauth.WithCaller(ctx, user), nil
}

func authenticateUnary(tokens *httpauth.Tokens) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, err := authenticate(ctx, tokens, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}

func authenticateStream(tokens *httpauth.Tokens) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, err := authenticate(stream.Context(), tokens, info.FullMethod)
		if err != nil {
			return err
		}
		return handler(srv, &contextStream{stream, ctx})
	}
}

// contextStream is a stream with another context.
type contextStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // that is how gRPC hands on the context of a stream
}

func (s *contextStream) Context() context.Context { return s.ctx }

// recovered makes an answer of a panic: one bad call does not end the calls of all others.
func recovered(ctx context.Context, log *slog.Logger, method string, err *error) {
	if r := recover(); r != nil {
		log.ErrorContext(ctx, "call panicked", "method", method, "panic", r, "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "something went wrong")
	}
}

func recoverUnary(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
		defer recovered(ctx, log, info.FullMethod, &err)
		return handler(ctx, req)
	}
}

func recoverStream(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		defer recovered(stream.Context(), log, info.FullMethod, &err)
		return handler(srv, stream)
	}
}

// exhausted gives the full bulkhead its status.
func exhausted(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	answer, err := handler(ctx, req)
	if errors.Is(err, bulkhead.ErrFull) {
		return nil, status.Error(codes.ResourceExhausted, "too many calls; try again")
	}
	return answer, err
}

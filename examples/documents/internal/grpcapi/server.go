package grpcapi

import (
	"log/slog"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/failsafegrpc"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gotidings/tidings/examples/documents/internal/document"
	pb "github.com/gotidings/tidings/examples/documents/internal/grpcapi/documentsv1"
	"github.com/gotidings/tidings/examples/documents/internal/httpauth"
	"github.com/gotidings/tidings/examples/documents/internal/tracing"
	"github.com/gotidings/tidings/examples/documents/internal/watch"
)

// most is how many unary calls are under way at a time; others get RESOURCE_EXHAUSTED, and
// may come again.
const most = 1000

// Config is what the server is made of. All fields are required.
type Config struct {
	Store   *document.Store
	Watcher *watch.Watcher
	Tokens  *httpauth.Tokens
	Tracer  trace.TracerProvider
	Logger  *slog.Logger
}

// NewServer returns the server with the document service and the health service, which says
// SERVING until it is told otherwise. The interceptors are, outermost first: tracing, so that
// refused calls are seen too; panics; authentication; the bulkhead.
func NewServer(cfg Config) (*grpc.Server, *health.Server) {
	traced := tracing.NewGRPC(cfg.Tracer)
	full := bulkhead.New[any](most)
	server := grpc.NewServer(
		grpc.WaitForHandlers(true), // before what they use is closed
		grpc.ChainUnaryInterceptor(traced.UnaryServer, recoverUnary(cfg.Logger), authenticateUnary(cfg.Tokens),
			exhausted, failsafegrpc.NewUnaryServerInterceptorWithExecutor(failsafe.With[any](full))),
		grpc.ChainStreamInterceptor(traced.StreamServer, recoverStream(cfg.Logger), authenticateStream(cfg.Tokens)),
	)
	pb.RegisterDocumentServiceServer(server, &service{store: cfg.Store, watcher: cfg.Watcher, log: cfg.Logger})
	state := health.NewServer()
	state.SetServingStatus(pb.DocumentService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, state)
	return server, state
}

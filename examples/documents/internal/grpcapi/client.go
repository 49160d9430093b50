package grpcapi

import (
	"context"
	"errors"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafegrpc"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gotidings/tidings/events"
	pb "github.com/gotidings/tidings/examples/documents/internal/grpcapi/documentsv1"
	"github.com/gotidings/tidings/examples/documents/internal/tracing"
)

// ClientConfig is what a [Client] needs. Target and Token are required.
type ClientConfig struct {
	Target string // as grpc.NewClient takes it: "127.0.0.1:9090", or dns:///documents:9090 for balancing
	Token  string
	Tracer trace.TracerProvider // nil makes no spans

	// Retries is how often a call is made again that found nobody; 0 means 3. Delay is the
	// time before the first of them, which doubles; 0 means 2 s.
	Retries int
	Delay   time.Duration
}

// Client is a resilient client of the document service.
type Client struct {
	pb.DocumentServiceClient

	conn *grpc.ClientConn
}

// NewClient makes a client. It connects with the first call.
//
// A unary call that finds the service unavailable is made again, and after five failures in
// a row none is made for 30 s. Streams are not made again: their caller knows what has
// arrived.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Retries == 0 {
		cfg.Retries = 3
	}
	if cfg.Delay == 0 {
		cfg.Delay = 2 * time.Second
	}
	unavailable := func(_ any, err error) bool { return status.Code(err) == codes.Unavailable }
	// Not failsafegrpc's builder, which repeats more: what the server has no room for, say.
	retry := retrypolicy.NewBuilder[any]().HandleIf(unavailable).
		WithMaxRetries(cfg.Retries).WithBackoff(cfg.Delay, 4*cfg.Delay).WithJitterFactor(0.2).ReturnLastFailure().Build()
	breaker := circuitbreaker.NewBuilder[any]().HandleIf(unavailable).WithFailureThreshold(5).WithDelay(30 * time.Second).Build()

	unary := []grpc.UnaryClientInterceptor{withStatus, bearerUnary(cfg.Token), sameDocument, failsafegrpc.NewUnaryClientInterceptorWithExecutor(failsafe.With[any](retry, breaker))}
	stream := []grpc.StreamClientInterceptor{bearerStream(cfg.Token)}
	if cfg.Tracer != nil {
		traced := tracing.NewGRPC(cfg.Tracer)
		unary, stream = append(unary, traced.UnaryClient), append(stream, traced.StreamClient)
	}
	conn, err := grpc.NewClient(cfg.Target,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // on one machine; a real one takes TLS, or the token can be read
		grpc.WithChainUnaryInterceptor(unary...), grpc.WithChainStreamInterceptor(stream...))
	if err != nil {
		return nil, err
	}
	return &Client{pb.NewDocumentServiceClient(conn), conn}, nil
}

// Close ends the connections. Calls under way fail.
func (c *Client) Close() error { return c.conn.Close() }

// Health asks whether the document service can be used.
func (c *Client) Health(ctx context.Context) (healthpb.HealthCheckResponse_ServingStatus, error) {
	answer, err := healthpb.NewHealthClient(c.conn).Check(ctx, &healthpb.HealthCheckRequest{Service: pb.DocumentService_ServiceDesc.ServiceName})
	return answer.GetStatus(), err
}

// withStatus gives errors of the policies a status: that of a context which has ended, and
// UNAVAILABLE for an open circuit.
func withStatus(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, circuitbreaker.ErrOpen) {
		return status.Error(codes.Unavailable, err.Error())
	}
	return status.FromContextError(err).Err()
}

// sameDocument gives a document its id before the first try, so that all tries are for one.
func sameDocument(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if r, ok := req.(*pb.ProcessDocumentRequest); ok && r.GetDocumentId() == "" {
		req = &pb.ProcessDocumentRequest{Name: r.GetName(), Content: r.GetContent(), DocumentId: events.NewID()}
	}
	return invoke(ctx, method, req, reply, conn, opts...)
}

func bearer(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func bearerUnary(token string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return invoke(bearer(ctx, token), method, req, reply, conn, opts...)
	}
}

func bearerStream(token string) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		return open(bearer(ctx, token), desc, conn, method, opts...)
	}
}

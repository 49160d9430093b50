package tracing

import (
	"context"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// GRPC has the interceptors that make a span of each call, on either side.
type GRPC struct{ tracer trace.Tracer }

// NewGRPC makes the interceptors.
func NewGRPC(tp trace.TracerProvider) *GRPC { return &GRPC{tp.Tracer(scope)} }

func (g *GRPC) start(ctx context.Context, method string, kind trace.SpanKind) (context.Context, trace.Span) {
	return g.tracer.Start(ctx, method, trace.WithSpanKind(kind), trace.WithAttributes(semconv.RPCSystemNameGRPC, semconv.RPCMethod(method)))
}

func end(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, status.Code(err).String())
	}
	span.End()
}

// UnaryServer is a grpc.UnaryServerInterceptor.
func (g *GRPC) UnaryServer(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, span := g.start(incoming(ctx), info.FullMethod, trace.SpanKindServer)
	answer, err := handler(ctx, req)
	end(span, err)
	return answer, err
}

// StreamServer is a grpc.StreamServerInterceptor. The span is as long as the stream.
func (g *GRPC) StreamServer(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, span := g.start(incoming(stream.Context()), info.FullMethod, trace.SpanKindServer)
	err := handler(srv, &tracedStream{stream, ctx})
	end(span, err)
	return err
}

// tracedStream is a stream with a span in its context.
type tracedStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // that is how gRPC hands on the context of a stream
}

func (s *tracedStream) Context() context.Context { return s.ctx }

// UnaryClient is a grpc.UnaryClientInterceptor.
func (g *GRPC) UnaryClient(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, span := g.start(ctx, method, trace.SpanKindClient)
	err := invoke(outgoing(ctx), method, req, reply, conn, opts...)
	end(span, err)
	return err
}

// StreamClient is a grpc.StreamClientInterceptor. The span is that of opening the stream.
func (g *GRPC) StreamClient(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, span := g.start(ctx, method, trace.SpanKindClient)
	stream, err := open(outgoing(ctx), desc, conn, method, opts...)
	end(span, err)
	return stream, err
}

func incoming(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	return propagator.Extract(ctx, headers(md))
}

func outgoing(ctx context.Context) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	propagator.Inject(ctx, headers(md))
	return metadata.NewOutgoingContext(ctx, md)
}

// headers are gRPC metadata as the fields of a propagator.
type headers metadata.MD

var _ propagation.TextMapCarrier = headers(nil)

func (h headers) Get(field string) string {
	if values := metadata.MD(h).Get(field); len(values) > 0 {
		return values[0]
	}
	return ""
}

func (h headers) Set(field, value string) { metadata.MD(h).Set(field, value) }

func (h headers) Keys() (fields []string) {
	for field := range h {
		fields = append(fields, field)
	}
	return fields
}

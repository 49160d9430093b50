package httpclient

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// wire makes single tries: a request, and the whole response. Its timeout is a context and
// not a policy of failsafe, which would end with the response's header, and leave the body
// to take for ever.
type wire struct {
	Config
	tracer trace.Tracer
}

func newWire(cfg Config) *wire {
	return &wire{cfg, cfg.TracerProvider.Tracer("github.com/gotidings/tidings/examples/documents/internal/httpclient")}
}

// RoundTrip makes a try. The body of the response is in memory.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	call := callOf(req.Context())
	call.tries++
	ctx, cancel := context.WithTimeout(req.Context(), w.TryTimeout)
	defer cancel()
	ctx, span := w.start(ctx, req, call)
	defer span.End()
	req = req.WithContext(ctx)
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header)) // signer has cloned it

	began := time.Now()
	res, err := w.exchange(req)
	call.last = outcome(res, err)
	w.log(ctx, req, call, res, err, time.Since(began))
	if res != nil {
		span.SetAttributes(attribute.Int("http.response.status_code", res.StatusCode))
	}
	if kindOf(res, err) != nil {
		span.SetStatus(codes.Error, call.last)
	}
	return res, err
}

func (w *wire) exchange(req *http.Request) (*http.Response, error) {
	res, err := w.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, w.MaxResponseBytes+1))
	_ = res.Body.Close() // what matters was read
	if err != nil {
		return nil, fmt.Errorf("read the response: %w", err)
	}
	if int64(len(body)) > w.MaxResponseBytes {
		return nil, fmt.Errorf("%w: the response has more than %d bytes", ErrMalformed, w.MaxResponseBytes)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

// start begins the span of a try, with the attributes of OpenTelemetry's conventions. A path
// has ids in it, so the name is the method.
func (w *wire) start(ctx context.Context, req *http.Request, call *call) (context.Context, trace.Span) {
	attrs := []attribute.KeyValue{
		attribute.String("http.request.method", req.Method),
		attribute.String("server.address", req.URL.Hostname()),
		attribute.String("url.path", req.URL.Path),
		attribute.String("service.peer.name", w.Name),
	}
	if call.tries > 1 {
		attrs = append(attrs, attribute.Int("http.request.resend_count", call.tries-1))
	}
	return w.tracer.Start(ctx, req.Method, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
}

// log writes the line of a try. Queries, headers and bodies are where secrets are.
func (w *wire) log(ctx context.Context, req *http.Request, call *call, res *http.Response, err error, took time.Duration) {
	attrs := []slog.Attr{
		slog.String("service", w.Name),
		slog.String("method", req.Method),
		slog.String("path", req.URL.Path),
		slog.String("request_id", call.id),
		slog.Int("try", call.tries),
		slog.Duration("duration", took),
	}
	if id := trace.SpanContextFromContext(ctx).TraceID(); id.IsValid() {
		attrs = append(attrs, slog.String("trace_id", id.String()))
	}
	if res != nil {
		attrs = append(attrs, slog.Int("status", res.StatusCode))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	level := slog.LevelInfo
	if kindOf(res, err) != nil {
		level = slog.LevelWarn
	}
	w.Logger.LogAttrs(ctx, level, "http request", attrs...)
}

// outcome is a try's in a few words.
func outcome(res *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	return statusText(res.StatusCode)
}

func statusText(status int) string { return fmt.Sprint(status, " ", http.StatusText(status)) }

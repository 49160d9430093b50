package main

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

const traceKey = "trace_id"

// traced adds the trace to what is logged, by which lines of all services belong together.
type traced struct{ slog.Handler }

func (h traced) Handle(ctx context.Context, r slog.Record) error {
	has := false
	r.Attrs(func(a slog.Attr) bool {
		has = a.Key == traceKey
		return !has
	})
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() && !has {
		r.AddAttrs(slog.String(traceKey, sc.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(attrs)} }

func (h traced) WithGroup(name string) slog.Handler { return traced{h.Handler.WithGroup(name)} }

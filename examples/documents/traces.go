package main

import (
	"context"
	"errors"
	"os"
	"time"

	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// openTracer makes what makes spans. They go to the file of -traces, in whose place a real
// system has an exporter to its collector; without one they go nowhere, but their ids are in
// the logs.
func (c *config) openTracer() (tracer *sdktrace.TracerProvider, closeTracer func() error, err error) {
	if c.traces == "" {
		return sdktrace.NewTracerProvider(), func() error { return nil }, nil
	}
	file, err := os.OpenFile(c.traces, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	exporter, err := stdouttrace.New(stdouttrace.WithWriter(file))
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	tracer = sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName(c.name))))
	return tracer, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return errors.Join(tracer.Shutdown(ctx), file.Close())
	}, nil
}

package telemetry_test

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/telemetry"
	"github.com/gotidings/tidings/transports/memory"
)

// A program sets up the SDK and its global providers first, and gives telemetry to its
// buses.
func Example() {
	tel, err := telemetry.New(telemetry.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	broker, err := memory.New(memory.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer broker.Close() //nolint:errcheck // the memory transport has nothing to tell
	b, err := bus.New(broker, bus.Config{Source: "shop", Instrumentation: []bus.Instrumentation{tel}})
	if err != nil {
		fmt.Println(err)
		return
	}
	handled := make(chan struct{})
	bus.Subscribe(b, "send-welcome-email", func(ctx context.Context, e events.CustomerCreated) error {
		defer close(handled)
		// The context has the span of this delivery, in the trace of who published.
		fmt.Println(e.CustomerName, trace.SpanContextFromContext(ctx).TraceID())
		return nil
	})
	if err := b.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0x4b, 0xf9}, SpanID: trace.SpanID{1}, // of an HTTP request, for example
	}))
	if err := b.Publish(ctx, events.CustomerCreated{CustomerID: 42, CustomerName: "Ada", Email: "ada@example.com"}); err != nil {
		fmt.Println(err)
	}
	<-handled
	if err := b.Shutdown(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output: Ada 4bf90000000000000000000000000000
}

// A sampler that looks at more than the parent is to be asked for every span.
func ExampleConfig_askSampler() {
	_, err := telemetry.New(telemetry.Config{AskSampler: true})
	fmt.Println(err)
	// Output: <nil>
}

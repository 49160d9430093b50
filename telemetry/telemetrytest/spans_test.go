package telemetrytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/telemetry"
)

var errBoom = errors.New("boom")

func TestAnEventIsSentAndProcessedInOneTrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{})
		b := r.newBus(openMemory(t), bus.Config{})
		var md events.Metadata
		var inHandler trace.SpanContext
		bus.Subscribe(b, "mail", func(ctx context.Context, e placed) error {
			md, _ = events.MetadataFrom(ctx)
			inHandler = trace.SpanContextFromContext(ctx)
			return b.Publish(ctx, paid{Order: e.Order})
		})
		start(t, b)
		ctx, request := r.tracing.Tracer("test").Start(t.Context(), "POST /orders")
		if err := b.Publish(ctx, placed{Order: 1, Card: "4111"}); err != nil {
			t.Fatal(err)
		}
		request.End()
		synctest.Wait()

		root, sent, next := r.only("POST /orders", 1)[0], r.only("send order.placed", 1)[0], r.only("send order.paid", 1)[0]
		processed := r.only("process order.placed", 1)[0]
		check(t, "send is a child of the request", childOf(sent, root), true)
		check(t, "process is a child of send", childOf(processed, sent), true)
		check(t, "process has a link to send", linked(processed, sent), true)
		check(t, "the next send is a child of process", childOf(next, processed), true)
		check(t, "the handler's context has the process span", same(inHandler, processed.SpanContext()), true)
		check(t, "kind of send", sent.SpanKind(), trace.SpanKindProducer)
		check(t, "kind of process", processed.SpanKind(), trace.SpanKindConsumer)
		check(t, "traceparent in the metadata", strings.Contains(md.TraceParent, sent.SpanContext().SpanID().String()), true)
		for _, s := range []sdktrace.ReadOnlySpan{sent, processed} {
			check(t, "system", attr(s, "messaging.system"), "memory")
			check(t, "destination", attr(s, "messaging.destination.name"), "order.placed")
			check(t, "message id", attr(s, "messaging.message.id"), md.ID)
			check(t, "conversation id", attr(s, "messaging.message.conversation_id"), md.CorrelationID)
			check(t, "status", s.Status().Code, codes.Unset)
			check(t, "error.type", attr(s, "error.type"), "")
			name, _, _ := strings.Cut(s.Name(), " ")
			check(t, "operation name", attr(s, "messaging.operation.name"), name)
			check(t, "operation type", attr(s, "messaging.operation.type"), name)
			for _, kv := range s.Attributes() {
				if strings.Contains(kv.Value.String(), "4111") {
					t.Errorf("%s has the payload in %s", s.Name(), kv.Key)
				}
			}
		}
		check(t, "subscription", attr(processed, "messaging.destination.subscription.name"), "shop.mail")
		check(t, "consumer group", attr(processed, "messaging.consumer.group.name"), "shop.mail")
		check(t, "subscription of send", attr(sent, "messaging.destination.subscription.name"), "")
		check(t, "outcome", attr(processed, "tidings.outcome"), "handled")
		check(t, "attempt", attr(processed, "tidings.attempt"), "1")
	})
}

// A delivery has its own trace where that is asked for.
func TestDeliveriesCanBeginTheirOwnTraces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{NewTraces: true})
		b := r.newBus(openMemory(t), bus.Config{})
		bus.Subscribe(b, "mail", func(context.Context, placed) error { return nil })
		start(t, b)
		if err := b.Publish(t.Context(), placed{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		sent, processed := r.only("send order.placed", 1)[0], r.only("process order.placed", 1)[0]
		check(t, "process has a parent", processed.Parent().IsValid(), false)
		check(t, "one trace", processed.SpanContext().TraceID() == sent.SpanContext().TraceID(), false)
		check(t, "process has a link to send", linked(processed, sent), true)
		check(t, "links", len(processed.Links()), 1)
	})
}

// The span in which a bus was started is not the parent of all that comes later.
func TestAnEventWithoutATraceBeginsOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{})
		transport := openMemory(t)
		b := r.newBus(transport, bus.Config{})
		bus.Subscribe(b, "mail", func(context.Context, placed) error { return nil })
		ctx, startup := r.tracing.Tracer("test").Start(t.Context(), "startup")
		if err := b.Start(ctx); err != nil {
			t.Fatal(err)
		}
		startup.End()
		t.Cleanup(func() { shutdown(t, b) })
		plain, err := bus.New(transport, bus.Config{Source: "other"})
		if err != nil {
			t.Fatal(err)
		}
		for _, md := range []events.Metadata{{}, {TraceParent: "00-nonsense"}} {
			md.Type, md.DataContentType = "order.placed", "application/json"
			if err := plain.PublishRaw(ctx, bus.Raw{Metadata: md, Data: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for _, processed := range r.only("process order.placed", 2) {
			check(t, "process has a parent", processed.Parent().IsValid(), false)
			check(t, "links", len(processed.Links()), 0)
		}
	})
}

func TestRetriesRedeliveryPoisonAndRedriveStayInTheTrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{})
		b := r.newBus(openMemory(t), bus.Config{Retry: bus.RetryPolicy{Attempts: 2, Redeliveries: []time.Duration{time.Minute}}})
		mended := false
		bus.Subscribe(b, "mail", func(context.Context, placed) error {
			if mended {
				return nil
			}
			return errBoom
		})
		start(t, b)
		if err := b.Publish(t.Context(), placed{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		mended = true
		if n, err := b.Redrive(t.Context(), "mail", bus.Selection{}); n != 1 || err != nil {
			t.Fatalf("redrive: %d, %v", n, err)
		}
		synctest.Wait()
		sent := r.only("send order.placed", 1)[0]
		all := r.only("process order.placed", 3)
		for i, want := range []struct {
			outcome, attempt string
			status           codes.Code
			retries          int
		}{{"redelivered", "1", codes.Error, 1}, {"poisoned", "3", codes.Error, 1}, {"handled", "1", codes.Unset, 0}} {
			s := all[i]
			check(t, "outcome", attr(s, "tidings.outcome"), want.outcome)
			check(t, "attempt", attr(s, "tidings.attempt"), want.attempt)
			check(t, "status", s.Status().Code, want.status)
			check(t, "retries in place", len(s.Events()), want.retries)
			check(t, want.outcome+" is a child of send", childOf(s, sent), true)
			check(t, want.outcome+" has a link to send", linked(s, sent), true)
			if want.status == codes.Error {
				check(t, "error.type", attr(s, "error.type"), "*errors.errorString")
				check(t, "description", s.Status().Description, "boom")
			}
		}
	})
}

func TestEachEventOfABatchIsCreatedInItsOwnSpan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{})
		b := r.newBus(openMemory(t), bus.Config{})
		bus.Subscribe(b, "mail", func(context.Context, placed) error { return nil })
		start(t, b)
		if err := b.PublishAll(t.Context(), placed{Order: 1}, placed{Order: 2}, placed{Order: 3}); err != nil {
			t.Fatal(err)
		}
		if err := b.PublishAll(t.Context(), placed{Order: 4}, paid{Order: 4}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		sent, created := r.only("send order.placed", 1)[0], r.only("create order.placed", 4)
		check(t, "kind of send", sent.SpanKind(), trace.SpanKindClient)
		check(t, "messages", attr(sent, "messaging.batch.message_count"), "3")
		check(t, "id of a batch", attr(sent, "messaging.message.id"), "")
		check(t, "links", len(sent.Links()), 3)
		for _, c := range created[:3] {
			check(t, "kind of create", c.SpanKind(), trace.SpanKindProducer)
			check(t, "send has a link to create", linked(sent, c), true)
			check(t, "id", attr(c, "messaging.message.id") != "", true)
		}
		parents := make(map[trace.SpanID]bool)
		for _, p := range r.only("process order.placed", 4) {
			parents[p.Parent().SpanID()] = true
		}
		for _, c := range created {
			check(t, "an event's process span is a child of its create span", parents[c.SpanContext().SpanID()], true)
		}
		mixed := r.only("send", 1)[0]
		check(t, "destination of several topics", attr(mixed, "messaging.destination.name"), "")
		check(t, "messages", attr(mixed, "messaging.batch.message_count"), "2")
	})
}

func TestCreateSpansCanBeLeftOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{NoCreateSpans: true})
		b := r.newBus(openMemory(t), bus.Config{})
		bus.Subscribe(b, "mail", func(context.Context, placed) error { return nil })
		start(t, b)
		if err := b.PublishAll(t.Context(), placed{Order: 1}, placed{Order: 2}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.only("create order.placed", 0)
		sent := r.only("send order.placed", 1)[0]
		check(t, "kind of send", sent.SpanKind(), trace.SpanKindProducer)
		for _, p := range r.only("process order.placed", 2) {
			check(t, "process is a child of send", childOf(p, sent), true)
		}
	})
}

// A bridge passes events on: who created them is not changed.
func TestTheContextOfAnEventThatHasOneIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{})
		b := r.newBus(openMemory(t), bus.Config{})
		var got events.Metadata
		bus.Subscribe(b, "mail", func(ctx context.Context, _ placed) error {
			got, _ = events.MetadataFrom(ctx)
			return nil
		})
		start(t, b)
		const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		md := events.Metadata{Type: "order.placed", DataContentType: "application/json", TraceParent: parent, TraceState: "a=b"}
		if err := b.PublishRaw(t.Context(), bus.Raw{Metadata: md, Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		check(t, "traceparent", got.TraceParent, parent)
		check(t, "tracestate", got.TraceState, "a=b")
		sent, processed := r.only("send order.placed", 1)[0], r.only("process order.placed", 1)[0]
		check(t, "kind of send", sent.SpanKind(), trace.SpanKindClient)
		check(t, "link of send", sent.Links()[0].SpanContext.SpanID().String(), "b7ad6b7169203331")
		check(t, "parent of process", processed.Parent().SpanID().String(), "b7ad6b7169203331")
		check(t, "tracestate of process", processed.SpanContext().TraceState().String(), "a=b")
	})
}

func TestWhatIsNotSampledIsPropagatedAsSuch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		never := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
		b := record(t, telemetry.Config{TracerProvider: never}).newBus(openMemory(t), bus.Config{})
		var md events.Metadata
		bus.Subscribe(b, "mail", func(ctx context.Context, _ placed) error {
			md, _ = events.MetadataFrom(ctx)
			return nil
		})
		start(t, b)
		if err := b.Publish(t.Context(), placed{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		check(t, "ends as not sampled", strings.HasSuffix(md.TraceParent, "-00"), true)
	})
}

// asked notes which spans a sampler is asked for, and samples none.
type asked struct{ names *[]string }

func (a asked) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	*a.names = append(*a.names, p.Name+" "+fmt.Sprint(len(p.Attributes) > 0))
	return sdktrace.SamplingResult{Decision: sdktrace.Drop, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState()}
}

func (asked) Description() string { return "asked" }

// Nobody is asked about what is not sampled, unless that is asked for. The trace goes on
// in any case: other instrumentation in a handler begins none of its own.
func TestWhatIsNotSampledIsNotAskedAbout(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ask  bool
		want []string
	}{
		"by default": {false, []string{"send order.placed false"}},
		"asked":      {true, []string{"send order.placed true", "process order.placed true", "send order.paid true"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var names []string
				provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(asked{&names}))
				r := record(t, telemetry.Config{TracerProvider: provider, AskSampler: tt.ask})
				b := r.newBus(openMemory(t), bus.Config{})
				var in trace.Span
				var md events.Metadata
				bus.Subscribe(b, "mail", func(ctx context.Context, _ placed) error {
					in = trace.SpanFromContext(ctx)
					md, _ = events.MetadataFrom(ctx)
					return b.Publish(ctx, paid{})
				})
				var next events.Metadata
				bus.Subscribe(b, "ship", func(ctx context.Context, _ paid) error {
					next, _ = events.MetadataFrom(ctx)
					return nil
				})
				start(t, b)
				if err := b.Publish(t.Context(), placed{}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				sc := in.SpanContext()
				check(t, "the handler's trace is the event's", strings.Contains(md.TraceParent, sc.TraceID().String()), true)
				check(t, "the next event's trace is the same", strings.Contains(next.TraceParent, sc.TraceID().String()), true)
				check(t, "sampled", sc.IsSampled(), false)
				check(t, "the provider is there for others", in.TracerProvider() == trace.TracerProvider(provider), true)
				if len(names) > len(tt.want) && tt.ask {
					names = names[:len(tt.want)] // and what becomes of order.paid
				}
				if !slices.Equal(names, tt.want) {
					t.Errorf("asked for %q, want %q", names, tt.want)
				}
			})
		})
	}
}

// What a shutdown interrupts has not failed: it goes back.
func TestAnInterruptedDeliveryHasNotFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{})
		b := r.newBus(openMemory(t), bus.Config{ShutdownTimeout: time.Second})
		bus.Subscribe(b, "mail", func(ctx context.Context, _ placed) error {
			<-ctx.Done()
			return ctx.Err()
		})
		start(t, b)
		if err := b.Publish(t.Context(), placed{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		shutdown(t, b)
		s := r.only("process order.placed", 1)[0]
		check(t, "outcome", attr(s, "tidings.outcome"), "returned")
		check(t, "status", s.Status().Code, codes.Unset)
		failed, _ := value(r.collect()["messaging.client.consumed.messages"], attribute.String("error.type", "context.canceled"))
		check(t, "failed", failed, 0.0)
		_, points := value(r.collect()["tidings.critical_time"])
		check(t, "points of critical time", points, 0)
	})
}

func TestASendThatFailsSaysSo(t *testing.T) {
	t.Parallel()
	r := record(t, telemetry.Config{})
	transport := openMemory(t)
	b := r.newBus(transport, bus.Config{})
	if err := transport.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), placed{}); err == nil {
		t.Fatal("publish on a closed transport succeeds")
	}
	sent := r.only("send order.placed", 1)[0]
	check(t, "status", sent.Status().Code, codes.Error)
	check(t, "error.type", attr(sent, "error.type"), "*errors.errorString")
}

func TestBaggageTravelsAsAnExtension(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})})
		b := r.newBus(openMemory(t), bus.Config{})
		var tenant string
		bus.Subscribe(b, "mail", func(ctx context.Context, _ placed) error {
			tenant = baggage.FromContext(ctx).Member("tenant").Value()
			return nil
		})
		start(t, b)
		member, err := baggage.NewMember("tenant", "acme")
		if err != nil {
			t.Fatal(err)
		}
		bag, err := baggage.New(member)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(baggage.ContextWithBaggage(t.Context(), bag), placed{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		check(t, "tenant", tenant, "acme")
		check(t, "process is a child of send", childOf(r.only("process order.placed", 1)[0], r.only("send order.placed", 1)[0]), true)
	})
}

type dashed struct{ propagation.TraceContext }

func (dashed) Fields() []string { return []string{"x-b3-traceid"} }

func TestAPropagatorWhoseFieldsCanNotTravelIsAFault(t *testing.T) {
	t.Parallel()
	_, err := telemetry.New(telemetry.Config{Propagator: dashed{}})
	if err == nil || !strings.Contains(err.Error(), `"x-b3-traceid"`) {
		t.Errorf("the error is %v", err)
	}
}

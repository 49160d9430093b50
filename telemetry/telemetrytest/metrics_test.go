package telemetrytest

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	promclient "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/telemetry"
	"github.com/gotidings/tidings/telemetry/outboxmetrics"
	"github.com/gotidings/tidings/transports"
)

// mixture is a bus on which something of everything happens: of order.placed, number 1 is
// handled, 2 at the second try, 3 after a redelivery, 4 is poisoned, 5 discarded, 6 handled
// a second after it was published, and 1 comes again. Of order.paid there is one of a
// version that nobody handles.
func mixture(t *testing.T, r *recorder) (ids []string) {
	t.Helper()
	b := r.newBus(openMemory(t), bus.Config{Retry: bus.RetryPolicy{Attempts: 2, MinDelay: 1, MaxDelay: 1, Redeliveries: []time.Duration{time.Second}}})
	tries := make(map[int]int)
	bus.Subscribe(b, "mail", func(_ context.Context, e placed) error {
		tries[e.Order]++
		switch n := tries[e.Order]; {
		case e.Order == 2 && n < 2, e.Order == 3 && n < 3:
			return errBoom
		case e.Order == 4:
			return bus.Permanent(errBoom)
		case e.Order == 5:
			return bus.Discard(errBoom)
		case e.Order == 6:
			time.Sleep(time.Second) // virtual
		}
		return nil
	}, bus.Concurrency(1))
	start(t, b)
	for n := range 6 {
		id := events.NewID()
		ids = append(ids, id)
		if err := b.Publish(t.Context(), placed{Order: n + 1}, bus.WithID(id)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Minute)
	if err := b.Publish(t.Context(), placed{Order: 1}, bus.WithID(ids[0])); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return ids
}

func TestMetricsOfABus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{})
		mixture(t, r)
		got := r.collect()
		failed := attribute.String("error.type", "*errors.errorString")
		for _, want := range []struct {
			name  string
			value float64
			attrs []attribute.KeyValue
		}{
			{"messaging.client.sent.messages", 7, []attribute.KeyValue{attribute.String("messaging.operation.name", "send"), attribute.String("messaging.system", "memory")}},
			{"messaging.client.operation.duration", 7, []attribute.KeyValue{attribute.String("messaging.operation.type", "send")}},
			{"messaging.client.consumed.messages", 8, nil},
			{"messaging.client.consumed.messages", 2, []attribute.KeyValue{failed}},
			{"messaging.process.duration", 8, []attribute.KeyValue{attribute.String("messaging.operation.name", "process")}},
			{"messaging.process.duration", 2, []attribute.KeyValue{failed}},
			{"tidings.critical_time", 4, nil},
			{"tidings.retries", 2, []attribute.KeyValue{attribute.String("tidings.retry.kind", "in_place")}},
			{"tidings.retries", 1, []attribute.KeyValue{attribute.String("tidings.retry.kind", "redelivery")}},
			{"tidings.poisoned", 1, []attribute.KeyValue{failed}},
			{"tidings.deduplicated", 1, nil},
			{"tidings.discarded", 1, nil},
			{"tidings.poison.messages", 1, nil},
			{"tidings.in_flight", 0, nil},
		} {
			attrs := append([]attribute.KeyValue{}, want.attrs...)
			if !strings.Contains(want.name, "client.sent") && !strings.Contains(want.name, "operation.duration") {
				attrs = append(attrs, attribute.String("messaging.destination.subscription.name", "shop.mail"))
			}
			value, points := value(got[want.name], attrs...)
			if value != want.value || points == 0 {
				t.Errorf("%s %v is %v of %d points, want %v", want.name, want.attrs, value, points, want.value)
			}
		}
		for name, bounds := range map[string][]float64{
			"messaging.client.operation.duration": {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10},
			"messaging.process.duration":          {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10},
			"tidings.critical_time":               {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 86400},
		} {
			h := got[name].Data.(metricdata.Histogram[float64])
			if !slices.Equal(h.DataPoints[0].Bounds, bounds) {
				t.Errorf("buckets of %s: %v", name, h.DataPoints[0].Bounds)
			}
			check(t, "unit of "+name, got[name].Unit, "s")
		}
		// 6 took a second from publish to handled, 3 waited a second behind it or for its redelivery.
		critical := got["tidings.critical_time"].Data.(metricdata.Histogram[float64]).DataPoints[0]
		if critical.Sum < 2 || critical.Sum > 4 {
			t.Errorf("the critical times are %v s together, want 2 to 4", critical.Sum)
		}
	})
}

// An event of a type that the subscription does not know is not handled, and counted.
func TestUnhandledEventsAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{})
		transport := openMemory(t)
		b := r.newBus(transport, bus.Config{})
		bus.Subscribe(b, "mail", func(context.Context, placed) error { return nil })
		start(t, b)
		wider := transports.Subscription{Name: "shop.mail", Topics: []string{"order.paid"}, Concurrency: 1}
		ctx, cancel := context.WithCancel(t.Context())
		in, err := transport.Subscribe(ctx, wider) // another replica, newer, which has stopped
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for range in {
			t.Error("a message for the other replica")
		}
		if err := b.Publish(t.Context(), paid{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := r.collect()
		unhandled, _ := value(got["tidings.unhandled"], attribute.String("messaging.destination.name", "order.paid"))
		check(t, "unhandled", unhandled, 1.0)
		delayed, _ := value(got["tidings.subscription.messages"], attribute.String("tidings.state", "delayed"))
		check(t, "delayed", delayed, 1.0)
		processed := r.only("process order.paid", 1)[0]
		check(t, "outcome", attr(processed, "tidings.outcome"), "deferred")
		check(t, "error.type", attr(processed, "error.type"), "")
	})
}

func TestDepthAndInFlightWhileAHandlerRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{DepthInterval: 30 * time.Second})
		b := r.newBus(openMemory(t), bus.Config{})
		bus.Subscribe(b, "mail", func(ctx context.Context, _ placed) error {
			time.Sleep(time.Hour) // virtual
			return nil
		}, bus.Concurrency(1))
		start(t, b)
		for n := range 4 {
			if err := b.Publish(t.Context(), placed{Order: n}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		state := func(metrics map[string]metricdata.Metrics, state string) float64 {
			n, _ := value(metrics["tidings.subscription.messages"], attribute.String("tidings.state", state))
			return n
		}
		got := r.collect()
		check(t, "in flight", first(value(got["tidings.in_flight"])), 1.0)
		check(t, "ready", state(got, "ready"), 3.0)
		check(t, "in flight at the broker", state(got, "in_flight"), 1.0)
		if err := b.Publish(t.Context(), placed{}); err != nil {
			t.Fatal(err)
		}
		check(t, "ready, as of the last answer", state(r.collect(), "ready"), 3.0)
		time.Sleep(31 * time.Second)
		check(t, "ready, asked again", state(r.collect(), "ready"), 4.0)
		time.Sleep(24 * time.Hour)
		shutdown(t, b)
		_, points := value(r.collect()["tidings.subscription.messages"])
		check(t, "points of a bus that has ended", points, 0)
		sent, _ := value(r.collect()["messaging.client.sent.messages"])
		check(t, "what a bus has sent outlives it", sent, 5.0)
	})
}

func first(v float64, _ int) float64 { return v }

// hanging is a transport whose broker does not answer.
type hanging struct {
	transports.Transport
	asked *atomic.Int32
}

func (h hanging) Depth(ctx context.Context, _ string) (transports.Depth, error) {
	h.asked.Add(1)
	<-ctx.Done()
	return transports.Depth{}, ctx.Err()
}

func TestABrokerThatDoesNotAnswerHoldsUpOneCollectionInAnInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{})
		var asked atomic.Int32
		b := r.newBus(hanging{openMemory(t), &asked}, bus.Config{})
		bus.Subscribe(b, "mail", func(context.Context, placed) error { return nil })
		start(t, b)
		var all metricdata.ResourceMetrics
		begun := time.Now()
		if err := r.reader.Collect(t.Context(), &all); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
		check(t, "waited", time.Since(begun), 5*time.Second)
		if len(all.ScopeMetrics) == 0 {
			t.Error("the other metrics are missing")
		}
		r.collect()
		check(t, "waited in all", time.Since(begun), 5*time.Second)
		check(t, "asked", asked.Load(), 1)
	})
}

func TestABatchCountsEachMessageAndItsOwnError(t *testing.T) {
	t.Parallel()
	r := record(t, telemetry.Config{})
	partly := failing{openMemory(t)}
	b := r.newBus(partly, bus.Config{})
	if err := b.PublishAll(t.Context(), placed{}, paid{}, placed{}); err == nil {
		t.Fatal("no error")
	}
	got := r.collect()["messaging.client.sent.messages"]
	all, _ := value(got)
	bad, _ := value(got, attribute.String("error.type", "*errors.errorString"), attribute.String("messaging.destination.name", "order.placed"))
	check(t, "sent", all, 3.0)
	check(t, "failed", bad, 1.0)
	sends, _ := value(r.collect()["messaging.client.operation.duration"])
	check(t, "operations", sends, 1.0)
}

// failing sends all but the last message of a batch.
type failing struct{ transports.Transport }

func (failing) PublishBatch(_ context.Context, batch []transports.Outgoing) error {
	return transports.BatchError(len(batch), []transports.PublishFailure{{Index: len(batch) - 1, Err: errBoom}})
}

func TestPrometheusScrapesThemWithoutAnyID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry := promclient.NewRegistry()
		exporter, err := prometheus.New(prometheus.WithRegisterer(registry))
		if err != nil {
			t.Fatal(err)
		}
		ids := mixture(t, record(t, telemetry.Config{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))}))
		page := httptest.NewRecorder()
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
		text := page.Body.String()
		for _, name := range []string{
			"messaging_client_operation_duration_seconds_bucket", "messaging_client_sent_messages_total", "messaging_client_consumed_messages_total",
			"messaging_process_duration_seconds_count", "tidings_critical_time_seconds_sum", "tidings_retries_total", "tidings_poisoned_total",
			"tidings_deduplicated_total", "tidings_discarded_total", "tidings_in_flight", "tidings_subscription_messages", "tidings_poison_messages",
		} {
			if !strings.Contains(text, "\n"+name+"{") {
				t.Errorf("%s is not scraped:\n%s", name, text)
			}
		}
		if !strings.Contains(text, `messaging_destination_subscription_name="shop.mail"`) || !strings.Contains(text, `messaging_destination_name="order.placed"`) {
			t.Error("the labels of the subscription or the topic are missing")
		}
		for _, id := range ids {
			if strings.Contains(text, id) {
				t.Errorf("the event's id %s is in a label", id)
			}
		}
	})
}

// Whoever makes up types of events makes up no series without end.
func TestTopicsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := record(t, telemetry.Config{})
		transport := openMemory(t)
		b := r.newBus(transport, bus.Config{})
		bus.SubscribeRaw(b, "all", []string{"#"}, func(context.Context, bus.Raw) error { return nil })
		start(t, b)
		plain, err := bus.New(transport, bus.Config{Source: "other"})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 1500 {
			if err := plain.PublishRaw(t.Context(), bus.Raw{Metadata: events.Metadata{Type: "made.up." + strconv.Itoa(n)}}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		got := r.collect()["messaging.client.consumed.messages"]
		all, points := value(got)
		check(t, "consumed", all, 1500.0)
		check(t, "series", points, 1001)
		others, _ := value(got, attribute.String("messaging.destination.name", "_OTHER"))
		check(t, "others", others, 500.0)
		check(t, "spans named for no topic", len(r.ended("process")), 500)
	})
}

func TestOutboxMetrics(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	r := record(t, telemetry.Config{})
	ob := newOutbox(t, db, r, "order.x", "bill.x")
	rl, err := outbox.NewRelay(ob, outbox.RelayConfig{Name: "broker", To: openMemory(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := rl.Declare(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop, err := outboxmetrics.Observe(ob, outboxmetrics.Config{MeterProvider: r.meters, Interval: 1})
	if err != nil {
		t.Fatal(err)
	}
	broker := attribute.String("tidings.outbox.destination", "broker")
	check(t, "waiting", first(value(r.collect()["tidings.outbox.messages"], broker)), 0.0)
	check(t, "age", first(value(r.collect()["tidings.outbox.oldest.age"], broker)), 0.0)
	for id := range 3 {
		err := ob.InTx(t.Context(), nil, func(ctx context.Context, tx *sql.Tx) error { return ob.Publish(ctx, tx, order{ID: id}) })
		if err != nil {
			t.Fatal(err)
		}
	}
	check(t, "waiting", first(value(r.collect()["tidings.outbox.messages"], broker)), 3.0)
	_, points := value(r.collect()["tidings.outbox.parked"], broker)
	check(t, "points of parked", points, 1)
	for begun := time.Now(); first(value(r.collect()["tidings.outbox.oldest.age"], broker)) <= 0; {
		if time.Since(begun) > deadline {
			t.Fatal("the oldest event does not age")
		}
	}
	created, _ := value(r.collect()["messaging.client.operation.duration"], attribute.String("messaging.operation.name", "create"))
	check(t, "writes to the outbox", created, 3.0)
	_, points = value(r.collect()["messaging.client.sent.messages"])
	check(t, "points of sent messages, of which there are none", points, 0)
	if err := stop(); err != nil {
		t.Error(err)
	}
	_, points = value(r.collect()["tidings.outbox.messages"])
	check(t, "points after stop", points, 0)
}

func TestClosedTelemetryObservesNothing(t *testing.T) {
	t.Parallel()
	r := record(t, telemetry.Config{})
	b := r.newBus(openMemory(t), bus.Config{})
	if err := b.Publish(t.Context(), placed{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	_, points := value(r.collect()["messaging.client.sent.messages"])
	check(t, "points", points, 0)
}

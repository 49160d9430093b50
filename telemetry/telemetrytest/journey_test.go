package telemetrytest

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	_ "modernc.org/sqlite"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/inbox"
	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/telemetry"
	"github.com/gotidings/tidings/transports/rabbitmq"
)

// deadline is how long a test waits for a signal. A busy machine is slow.
const deadline = 2 * time.Minute

// Their names on the wire are the test's own: the broker is everybody's.
type (
	order struct{ ID int }
	bill  struct{ ID int }
)

func openSQLite(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "test.db")+"?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, db.Close) })
	return db
}

func closing(t *testing.T, fn func() error) {
	t.Helper()
	if err := fn(); err != nil {
		t.Error(err)
	}
}

// An order comes by HTTP and is written to the outbox; the relay sends it to RabbitMQ; its
// handler fails, gets it again, and publishes a second event in its inbox's transaction,
// which goes the same way.
func TestOneOrderIsOneTrace(t *testing.T) {
	t.Parallel()
	server := testserver.RabbitMQ(t)
	db, r, own := openSQLite(t), record(t, telemetry.Config{}), uuid.NewString()
	orders, bills := "order."+own, "bill."+own
	ob := newOutbox(t, db, r, orders, bills)
	ib, err := inbox.New(t.Context(), inbox.Config{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, ib.Close) })
	broker, err := rabbitmq.Open(t.Context(), rabbitmq.Config{URLs: []string{server}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, broker.Close) })

	b, err := bus.New(broker, bus.Config{
		Source: "shop-" + own, Instrumentation: []bus.Instrumentation{r.Telemetry},
		Retry: bus.RetryPolicy{Attempts: 1, Redeliveries: []time.Duration{50 * time.Millisecond}},
	})
	if err != nil {
		t.Fatal(err)
	}
	bus.Register[order](b, orders)
	bus.Register[bill](b, bills)
	var calls atomic.Int32
	billed := make(chan error, 1)
	inbox.Subscribe(b, ib, "pay", func(ctx context.Context, tx *sql.Tx, o order) error {
		if calls.Add(1) == 1 {
			return errors.New("the bank is away")
		}
		return ob.Publish(ctx, tx, bill(o))
	})
	bus.Subscribe(b, "ship", func(context.Context, bill) error {
		billed <- nil
		return nil
	}, bus.WithoutDedup())
	start(t, b)
	t.Cleanup(func() {
		shutdown(t, b)
		for _, name := range b.Subscriptions() {
			closing(t, func() error { return b.RemoveSubscription(context.Background(), name) })
		}
	})
	relay(t, ob, r, broker)

	api := httptest.NewServer(traced(r.tracing, func(w http.ResponseWriter, req *http.Request) {
		status := http.StatusOK
		if ob.InTx(req.Context(), nil, func(ctx context.Context, tx *sql.Tx) error { return ob.Publish(ctx, tx, order{ID: 1}) }) != nil {
			status = http.StatusInternalServerError
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(api.Close)
	const caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	post(t, api.URL+"/orders", caller)
	select {
	case err := <-billed:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(deadline):
		t.Fatal("the second event has not come")
	}
	shutdown(t, b) // ends the last span

	request := r.only("POST /orders", 1)[0]
	check(t, "the trace is the caller's", request.SpanContext().TraceID().String(), "4bf92f3577b34da6a3ce929d0e0e4736")
	ordered, failed := r.only("create "+orders, 1)[0], r.only("process "+orders, 2)[0]
	again := r.only("process "+orders, 2)[1]
	paidFor, shipped := r.only("create "+bills, 1)[0], r.only("process "+bills, 1)[0]
	for _, edge := range []struct {
		child, parent sdktrace.ReadOnlySpan
		byLink        bool
	}{{ordered, request, false}, {failed, ordered, true}, {again, ordered, true}, {paidFor, again, false}, {shipped, paidFor, true}} {
		what := edge.child.Name() + " of " + edge.parent.Name()
		check(t, what+" is its child", childOf(edge.child, edge.parent), true)
		check(t, what+" has a link", linked(edge.child, edge.parent), edge.byLink)
		check(t, what+" is in the caller's trace", edge.child.SpanContext().TraceID(), request.SpanContext().TraceID())
	}
	check(t, "outcome of the first delivery", attr(failed, "tidings.outcome"), "redelivered")
	check(t, "status of the first delivery", failed.Status().Code, codes.Error)
	check(t, "outcome of the second delivery", attr(again, "tidings.outcome"), "handled")
	check(t, "attempt of the second delivery", attr(again, "tidings.attempt"), "2")
	check(t, "status of the second delivery", again.Status().Code, codes.Unset)
	check(t, "system of a delivery", attr(again, "messaging.system"), "rabbitmq")
	check(t, "routing key of a delivery", attr(again, "messaging.rabbitmq.destination.routing_key"), orders)
	check(t, "id is the same all the way", attr(again, "messaging.message.id"), attr(ordered, "messaging.message.id"))
	check(t, "conversation is the same all the way", attr(shipped, "messaging.message.conversation_id"), attr(ordered, "messaging.message.conversation_id"))
	check(t, "kind of create", ordered.SpanKind(), trace.SpanKindProducer)
	for topic, created := range map[string]sdktrace.ReadOnlySpan{orders: ordered, bills: paidFor} {
		sent := r.only("send "+topic, 1)[0] // by the relay, which sends what is there in batches
		check(t, "send has a link to the span that created the event", linked(sent, created), true)
		check(t, "kind of the relay's send", sent.SpanKind(), trace.SpanKindClient)
	}
}

func newOutbox(t *testing.T, db *sql.DB, r *recorder, orders, bills string) *outbox.Outbox {
	t.Helper()
	ob, err := outbox.New(t.Context(), outbox.Config{DB: db, Source: "shop", PublishMiddleware: []bus.PublishMiddleware{r.Outbox()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, ob.Close) })
	if err := errors.Join(outbox.Register[order](ob, orders), outbox.Register[bill](ob, bills)); err != nil {
		t.Fatal(err)
	}
	return ob
}

// relay runs a relay for as long as the test lasts.
func relay(t *testing.T, ob *outbox.Outbox, r *recorder, broker *rabbitmq.Transport) {
	t.Helper()
	rl, err := outbox.NewRelay(ob, outbox.RelayConfig{Name: "rabbitmq", To: broker, PublishMiddleware: []bus.PublishMiddleware{r.Relay(broker)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- rl.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		closing(t, func() error { return <-ended })
	})
}

// traced is what an instrumentation of net/http does.
func traced(provider trace.TracerProvider, h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		ctx := propagation.TraceContext{}.Extract(req.Context(), propagation.HeaderCarrier(req.Header))
		ctx, span := provider.Tracer("http").Start(ctx, req.Method+" "+req.URL.Path, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		h(w, req.WithContext(ctx))
	})
}

func post(t *testing.T, url, traceparent string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Traceparent", traceparent)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, resp.Body.Close)
	check(t, "status", resp.StatusCode, http.StatusOK)
}

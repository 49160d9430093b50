package interop_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports/memory"
)

// shipped is an event whose handler calls a warehouse.
type shipped struct {
	Order int `json:"order"`
}

func (shipped) EventType() string { return "order.shipped" }

// warehouse is an HTTP service that is down until it is mended.
type warehouse struct {
	mended atomic.Bool
	calls  atomic.Int32
}

func (w *warehouse) ServeHTTP(rw http.ResponseWriter, _ *http.Request) {
	w.calls.Add(1)
	if !w.mended.Load() {
		rw.WriteHeader(http.StatusServiceUnavailable)
	}
}

// notify calls the warehouse as any handler would.
func notify(client *http.Client, url string) func(context.Context, shipped) error {
	return func(ctx context.Context, e shipped) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprint(url, "/orders/", e.Order), http.NoBody)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		_ = res.Body.Close() // nothing was read
		if res.StatusCode >= http.StatusInternalServerError {
			return fmt.Errorf("warehouse: %s", res.Status)
		}
		return nil
	}
}

// One breaker guards an HTTP client, by failsafehttp, and pauses the subscription whose
// handler uses the client: while the warehouse is down, nothing is called, counted or
// poisoned. The web handlers that use the same client fail fast meanwhile.
func TestOneBreakerGuardsAHandlerAndAnHTTPClient(t *testing.T) {
	t.Parallel()
	down := &warehouse{}
	server := httptest.NewServer(down)
	defer server.Close()

	opened := make(chan struct{})
	tell := sync.OnceFunc(func() { close(opened) })
	breaker := circuitbreaker.NewBuilder[any]().
		HandleIf(func(result any, err error) bool {
			res, ok := result.(*http.Response)
			return err != nil || ok && res.StatusCode >= http.StatusInternalServerError
		}).
		WithFailureThreshold(2).WithSuccessThreshold(1).WithDelay(300 * time.Millisecond).
		OnOpen(func(circuitbreaker.StateChangedEvent) { tell() }).Build()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: failsafehttp.NewRoundTripperWithExecutor(transport, failsafe.WithAny[*http.Response](breaker))}

	broker, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	}()
	const events = 50
	var handled, poisoned atomic.Int32
	all := make(chan struct{})
	b, err := bus.New(broker, bus.Config{Source: "shop", OnDelivery: func(d bus.Delivery) {
		switch d.Outcome { //nolint:exhaustive // what matters here
		case bus.Poisoned:
			poisoned.Add(1)
		case bus.Handled:
			if handled.Add(1) == events {
				close(all)
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	bus.Subscribe(b, "notify-warehouse", notify(client, server.URL),
		bus.ObserveCircuitBreaker(breaker),
		bus.Retry(bus.RetryPolicy{Attempts: 2, MinDelay: time.Millisecond, MaxDelay: time.Millisecond, Redeliveries: []time.Duration{time.Millisecond}}))
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if err := b.Publish(t.Context(), shipped{Order: i}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	select {
	case <-opened: // by the handlers' first calls
	case <-ctx.Done():
		t.Fatal("the circuit did not open")
	}
	reasons, err := b.PauseReasons("notify-warehouse")
	if err != nil || len(reasons) != 1 {
		t.Errorf("reasons of the pause are %q, with error %v", reasons, err)
	}
	if calls := down.calls.Load(); calls > 16+2 { // as many as were in flight
		t.Errorf("the warehouse was called %d times while it was down", calls)
	}
	down.mended.Store(true)
	select {
	case <-all:
	case <-ctx.Done():
		t.Fatalf("%d of %d events are handled", handled.Load(), events)
	}
	if n := poisoned.Load(); n != 0 {
		t.Errorf("%d events are poisoned", n)
	}
	if err := b.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

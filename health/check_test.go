package health_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/health"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

func newTransport(t *testing.T) *memory.Transport {
	t.Helper()
	broker, err := memory.NewBroker(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return broker.Connect()
}

// newBus returns a bus with the subscriptions "mail" and "stock" that is not started.
func newBus(t *testing.T, transport transports.Transport) *bus.Bus {
	t.Helper()
	b, err := bus.New(transport, bus.Config{Source: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mail", "stock"} {
		bus.Subscribe(b, name, func(context.Context, events.OrderCreated) error { return nil })
	}
	return b
}

func TestTransportCheckPings(t *testing.T) {
	t.Parallel()
	transport := newTransport(t)
	h := newHandler(t, health.Config{MaxAge: -1, Checks: []health.Check{health.Transport(transport)}})
	want(t, h, "/readyz/transport", http.StatusOK, "pass")
	if err := transport.Close(); err != nil {
		t.Fatal(err)
	}
	a := want(t, h, "/readyz", http.StatusServiceUnavailable, "fail")
	if d := one(t, a, "transport"); d.Output != "the broker can't be used" {
		t.Errorf("%+v", d)
	}
	// One that can't tell is not held against the service.
	mute := struct{ transports.Transport }{transport}
	want(t, newHandler(t, checks(health.Transport(mute))), "/readyz", http.StatusOK, "pass")
}

func TestBusCheckFollowsTheLifeOfTheBus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, newTransport(t))
		h := newHandler(t, health.Config{MaxAge: -1, Checks: []health.Check{health.Bus(b)}})
		failsWith := func(output string) {
			t.Helper()
			a := want(t, h, "/readyz/bus", http.StatusServiceUnavailable, "fail")
			if d := one(t, a, "bus"); d.Output != output {
				t.Errorf("output %q, want %q", d.Output, output)
			}
		}
		failsWith("bus is not running")
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, h, "/readyz", http.StatusOK, "pass")
		if err := b.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		failsWith("bus is shut down")
	})
}

func TestBusCheckSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := newTransport(t)
		b := newBus(t, transport)
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := transport.RemoveSubscription(t.Context(), "shop.stock"); err != nil {
			t.Fatal(err)
		}
		_ = b.Wait()
		a := want(t, newHandler(t, checks(health.Bus(b))), "/readyz", http.StatusServiceUnavailable, "fail")
		if d := one(t, a, "bus"); d.Output != "subscription shop.stock was closed by the transport" {
			t.Errorf("%+v", d)
		}
		faulty, err := bus.New(transport, bus.Config{Source: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		bus.Subscribe[events.OrderCreated](faulty, "stock", nil)
		a = want(t, newHandler(t, checks(health.Bus(faulty))), "/readyz", http.StatusServiceUnavailable, "fail")
		if d := one(t, a, "bus"); d.Output != "bus is configured wrongly" {
			t.Errorf("%+v", d)
		}
	})
}

func TestPausedSubscriptions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, newTransport(t))
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := b.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		for _, name := range b.Subscriptions() {
			if err := b.Pause(name); err != nil {
				t.Fatal(err)
			}
		}
		const both = "mail is paused: paused by the operator; stock is paused: paused by the operator"
		for name, c := range map[string]struct {
			opts   []health.BusOption
			code   int
			status string
		}{
			"none allowed": {nil, http.StatusServiceUnavailable, "fail"},
			"one allowed":  {[]health.BusOption{health.AllowPaused("mail")}, http.StatusServiceUnavailable, "fail"},
			"other one":    {[]health.BusOption{health.AllowPaused("stock")}, http.StatusServiceUnavailable, "fail"},
			"both allowed": {[]health.BusOption{health.AllowPaused("mail"), health.AllowPaused("stock")}, http.StatusOK, "warn"},
			"all allowed":  {[]health.BusOption{health.AllowPaused()}, http.StatusOK, "warn"},
		} {
			a := want(t, newHandler(t, checks(health.Bus(b, c.opts...))), "/readyz", c.code, c.status)
			if d := one(t, a, "bus"); d.Output != both {
				t.Errorf("%s: %+v", name, d)
			}
		}
		for _, name := range b.Subscriptions() {
			if err := b.Resume(name); err != nil {
				t.Fatal(err)
			}
		}
		want(t, newHandler(t, checks(health.Bus(b))), "/readyz", http.StatusOK, "pass")
	})
}

func TestAgeHasALimit(t *testing.T) {
	t.Parallel()
	for age, code := range map[time.Duration]int{0: 200, time.Minute: 200, time.Minute + time.Millisecond: 503} {
		h := newHandler(t, checks(health.Age("outbox", time.Minute, func(context.Context) (time.Duration, error) { return age, nil })))
		got, a := get(t, h, "/readyz/outbox")
		if got != code {
			t.Errorf("%v: %d, want %d", age, got, code)
		}
		if d := one(t, a, "outbox"); code == 503 && d.Output != "the oldest has waited for 1m0.001s, the limit is 1m0s" {
			t.Errorf("%+v", d)
		}
	}
}

package bus_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/ratelimiter"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports/memory"
)

// note is an event of somebody else's, as protobuf messages are: a pointer
// without an EventType.
type note struct {
	Text string
}

type wild struct{}

func (wild) EventType() string { return "order.*" }

// rush and gift have placed's event type without having asked for it; own has its own.
type (
	rush struct{ placed }
	gift struct{ *placed }
	own  struct{ placed }
)

// view is what another module reads of placed.
type view struct{ Key string }

func (view) EventType() string { return placed{}.EventType() }

func (own) EventType() string { return "order.owned" }

func ignore[E any](context.Context, E) error { return nil }

func TestStartRefusesBadConfigurationAndSaysHowToMendIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		configure func(b *bus.Bus)
		want      string
	}{
		"empty name":                {func(b *bus.Bus) { bus.Subscribe(b, "", ignore[placed]) }, "a subscription's name is empty"},
		"duplicate name":            {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[placed]); bus.Subscribe(b, "a", ignore[paid]) }, `"a" is used twice`},
		"name with control char":    {func(b *bus.Bus) { bus.Subscribe(b, "a\nb", ignore[placed]) }, "has a control character"},
		"nil handler":               {func(b *bus.Bus) { bus.Subscribe[placed](b, "a", nil) }, "the handler for bus_test.placed is nil"},
		"nil raw handler":           {func(b *bus.Bus) { bus.SubscribeRaw(b, "a", []string{"#"}, nil) }, "the handler is nil"},
		"no handler":                {func(b *bus.Bus) { b.Subscription("a") }, `"a" receives nothing; add a handler with bus.On`},
		"no pattern":                {func(b *bus.Bus) { bus.SubscribeRaw(b, "a", nil, ignore[bus.Raw]) }, "receives nothing"},
		"malformed pattern":         {func(b *bus.Bus) { bus.SubscribeRaw(b, "a", []string{"order.x*"}, ignore[bus.Raw]) }, "must be a word of its own"},
		"two handlers for a type":   {func(b *bus.Bus) { bus.On(bus.Subscribe(b, "a", ignore[placed]), ignore[placed]) }, `has two handlers for "order.placed"`},
		"empty event type":          {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[sometimes]) }, `has the event type "", which is empty`},
		"wildcard in an event type": {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[wild]) }, "which has a wildcard"},
		"embedded event":            {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[placed]); bus.Subscribe(b, "b", ignore[rush]) }, "bus_test.rush has the event type"},
		"embedding event":           {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[rush]); bus.Subscribe(b, "b", ignore[placed]) }, "bus_test.rush has the event type"},
		"two that embed an event":   {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[rush]); bus.Subscribe(b, "b", ignore[struct{ placed }]) }, "by the embedded event bus_test.placed"},
		"unregistered pointer":      {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[*note]) }, "*bus_test.note is a pointer and not registered; use the value type, or bus.Register[*bus_test.note](b, name)"},
		"pointer to an event":       {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[*placed]) }, "*bus_test.placed is a pointer and not registered"},
		"no event":                  {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[note]) }, "has no EventType method"},
		"interface":                 {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[any]) }, "interface"},
		"registered as empty":       {func(b *bus.Bus) { bus.Register[*note](b, "") }, `is registered as "", which is empty`},
		"registered twice":          {func(b *bus.Bus) { bus.Register[*note](b, "x"); bus.Register[*note](b, "y") }, "it can have one name"},
		"name of another type":      {func(b *bus.Bus) { bus.Register[*note](b, "x"); bus.Register[note](b, "x") }, "each type needs a name of its own"},
		"concurrency":               {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[placed], bus.Concurrency(0)) }, "Concurrency is 0; it takes at least 1"},
		"timeout":                   {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[placed], bus.Timeout(-1)) }, "Timeout is -1ns; it must not be negative"},
		"attempts": {func(b *bus.Bus) {
			bus.Subscribe(b, "a", ignore[placed], bus.Retry(bus.RetryPolicy{Attempts: -1}))
		}, "Retry.Attempts is -1"},
		"back-off": {func(b *bus.Bus) {
			bus.Subscribe(b, "a", ignore[placed], bus.Retry(bus.RetryPolicy{MinDelay: time.Minute, MaxDelay: time.Second}))
		}, "Retry.MinDelay is 1m0s and MaxDelay is 1s"},
		"redelivery": {func(b *bus.Bus) {
			bus.Subscribe(b, "a", ignore[placed], bus.Retry(bus.RetryPolicy{Redeliveries: []time.Duration{-1}}))
		}, "Retry.Redeliveries[0] is -1ns"},
		"nil circuit breaker": {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[placed], bus.CircuitBreaker(nil)) }, "the circuit breaker is nil"},
		"two circuit breakers": {func(b *bus.Bus) {
			cb := circuitbreaker.NewWithDefaults[any]()
			bus.Subscribe(b, "a", ignore[placed], bus.CircuitBreaker(cb), bus.ObserveCircuitBreaker(cb))
		}, "it has 2 circuit breakers; give it one"},
		"nil rate limiter": {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[placed], bus.RateLimit(nil)) }, "the rate limiter is nil"},
		"nil policy":       {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[placed], bus.Policies(nil)) }, "policy 0 is nil"},
		"circuit breaker as a policy": {func(b *bus.Bus) {
			bus.Subscribe(b, "a", ignore[placed], bus.Policies(circuitbreaker.NewWithDefaults[any]()))
		}, "use bus.CircuitBreaker, which pauses the subscription"},
		"rate limiter as a policy": {func(b *bus.Bus) {
			bus.Subscribe(b, "a", ignore[placed], bus.Policies(ratelimiter.NewBursty[any](1, time.Second)))
		}, "use bus.RateLimit, which waits"},
		"nil fallback": {func(b *bus.Bus) {
			bus.Subscribe(b, "a", ignore[placed], bus.Fallback[placed](nil))
		}, "fallback 0 is nil"},
		"fallback for another type": {func(b *bus.Bus) {
			bus.Subscribe(b, "a", ignore[placed], bus.Fallback(func(context.Context, paid, error) error { return nil }))
		}, `has a fallback for "order.paid" and no handler for it`},
		"two fallbacks": {func(b *bus.Bus) {
			fallback := bus.Fallback(func(context.Context, placed, error) error { return nil })
			bus.Subscribe(b, "a", ignore[placed], fallback, fallback)
		}, `has two fallbacks for "order.placed"`},
		"fallback for no event": {func(b *bus.Bus) {
			bus.Subscribe(b, "a", ignore[placed], bus.Fallback(func(context.Context, note, error) error { return nil }))
		}, "fallback: bus_test.note has no EventType method"},
		"nil middleware": {func(b *bus.Bus) { bus.Subscribe(b, "a", ignore[placed], bus.Use(nil)) }, "middleware 0 is nil"},
		"dedup forgets before the last retry": {func(b *bus.Bus) {
			bus.Subscribe(b, "a", ignore[placed], bus.Retry(bus.RetryPolicy{Redeliveries: []time.Duration{2 * time.Hour}}))
		}, "Config.Dedup remembers for 1h0m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, bus.Config{})
				c.configure(s.Bus)
				err := s.Start(t.Context())
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error is %v, want one with %q", err, c.want)
				}
			})
		})
	}
}

// A type that embeds an event may have a type of its own, and views of one event may share one.
func TestEmbeddedEventsWithNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Register[gift](s.Bus, "order.gift")
		bus.Subscribe(s.Bus, "a", ignore[placed])
		bus.Subscribe(s.Bus, "b", ignore[own])
		bus.Subscribe(s.Bus, "c", ignore[gift])
		bus.Subscribe(s.Bus, "d", ignore[view])
		s.start()
		s.publish(own{})
		if err := s.Publish(t.Context(), rush{}); err == nil || !strings.Contains(err.Error(), "EventType method of its own") {
			t.Errorf("publish: %v; want a refusal", err)
		}
	})
}

func TestStartReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "", ignore[placed])
		bus.Subscribe[placed](s.Bus, "a", nil)
		bus.Subscribe(s.Bus, "b", ignore[placed], bus.Concurrency(-1), bus.Timeout(-1))
		err := s.Start(t.Context())
		for _, want := range []string{"name is empty", "is nil", "Concurrency is -1", "Timeout is -1ns"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error is %v, want one with %q", err, want)
			}
		}
	})
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	t.Parallel()
	transport, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = transport.Close() })
	if _, err := bus.New(nil, bus.Config{Source: "shop"}); err == nil {
		t.Error("a nil transport was taken")
	}
	_, err = bus.New(transport, bus.Config{
		Codecs: []bus.Codec{nil}, PublishMiddleware: []bus.PublishMiddleware{nil}, Middleware: []message.HandlerMiddleware{nil}, Concurrency: -1, Timeout: -1,
		ShutdownTimeout: -1, Retry: bus.RetryPolicy{Attempts: -1},
	})
	for _, want := range []string{
		"Source is empty", "Codecs[0] is nil", "PublishMiddleware[0] is nil", "Middleware[0] is nil", "Concurrency is -1",
		"Timeout is -1ns", "ShutdownTimeout is -1ns", "Retry.Attempts is -1",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
	if _, err := bus.New(transport, bus.Config{Source: "a\x00b"}); err == nil || !strings.Contains(err.Error(), "control character") {
		t.Errorf("error of a source with a control character is %v", err)
	}
}

func TestRegisteredPointerTypeIsPublishedAndHandled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Register[*note](s.Bus, "note.written")
		var got notes[string]
		bus.Subscribe(s.Bus, "a", func(_ context.Context, n *note) error {
			got.add(n.Text)
			return nil
		})
		s.start()
		s.publish(&note{Text: "hello"})
		settle()
		checkAll(t, "notes", got.get(), []string{"hello"})
	})
}

// leased is a store that needs renewing.
type leased struct {
	*middleware.MemoryDedup
	lease time.Duration
}

func (l leased) Lease() time.Duration { return l.lease }

func TestStartChecksTheDedupStoreAgainstTheTransport(t *testing.T) {
	t.Parallel()
	store, err := middleware.NewMemoryDedup(middleware.MemoryDedupConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg     bus.Config
		durable bool
		want    string // empty: Start succeeds
	}{
		"memory store on a durable transport":              {bus.Config{Dedup: store}, true, "set Config.AllowVolatileDedup"},
		"memory store on a durable transport with consent": {bus.Config{Dedup: store, AllowVolatileDedup: true}, true, ""},
		"memory store on a volatile transport":             {bus.Config{Dedup: store}, false, ""},
		"short lease":                                      {bus.Config{Dedup: leased{store, time.Millisecond}}, false, "lease of 1ms, too short"},
		"long lease":                                       {bus.Config{Dedup: leased{store, time.Minute}}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				transport := connect(t, newBroker(t, memory.Config{}))
				cfg := c.cfg
				cfg.Source = "shop"
				var b *bus.Bus
				if c.durable {
					b = newBus(t, plain{transport}, cfg)
				} else {
					b = newBus(t, transport, cfg)
				}
				bus.Subscribe(b, "a", ignore[placed])
				err := b.Start(t.Context())
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("error is %v, want %q", err, c.want)
				}
				if err := b.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestStartWarnsOfWhatIsDoubtful(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		transport := connect(t, newBroker(t, memory.Config{}))
		b := newBus(t, plain{transport}, bus.Config{Source: "shop", Logger: slog.New(slog.NewTextHandler(&log, nil))})
		bus.Subscribe(b, "a", ignore[placed], bus.Timeout(time.Minute))
		bus.Subscribe(b, "o", ignore[placed], bus.Ordered(), bus.Retry(exact(1, 10*time.Minute, 10*time.Minute)))
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		for _, want := range []string{
			"no deduplication", "the transport can't delay a redelivery", "the transport has no poison queues",
			"a handler may take longer than the shutdown waits", "an event is poisoned before its retries are used up",
		} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log has no %q:\n%s", want, log.String())
			}
		}
	})
}

func TestLogTellsWhatFailedAndNoPayload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newSetup(t, bus.Config{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error { panic("boo") }, bus.Retry(exact(2, time.Second)))
		s.start()
		s.publish(placed{N: 987654321})
		pass(time.Minute)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		for _, want := range []string{"level=DEBUG msg=delivery outcome=retried", "level=WARN msg=delivery outcome=redelivered", "level=ERROR msg=delivery outcome=poisoned", "subscription=shop.a", "event_type=order.placed", "attempt=4", `error="panic: boo"`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log has no %q:\n%s", want, log.String())
			}
		}
		if strings.Contains(log.String(), "987654321") {
			t.Error("the log has the payload")
		}
	})
}

package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/failsafe-go/failsafe-go/timeout"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// orders is the name of the subscription of the examples.
const orders = "shop.orders"

// subscriber makes a Watermill subscriber of a subscription of a transport.
type subscriber struct {
	transport   transports.Transport
	concurrency int
}

func (s subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	return s.transport.Subscribe(ctx, transports.Subscription{Name: orders, Topics: []string{topic}, Concurrency: s.concurrency})
}

func (s subscriber) Close() error { return s.transport.Close() }

// serve handles the orders 1 to n on a plain Watermill router with the given
// middleware, outermost first, until done is closed.
func serve(transport transports.Transport, n int, done <-chan struct{}, handle message.NoPublishHandlerFunc, mws ...message.HandlerMiddleware) {
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	check(err)
	router.AddMiddleware(mws...)
	router.AddConsumerHandler("orders", "order.created", subscriber{transport, 1}, handle)
	ended := make(chan error)
	go func() { ended <- router.Run(context.Background()) }()
	<-router.Running()
	for i := range n {
		check(transport.Publish("order.created", order(i+1)))
	}
	<-done
	check(router.Close())
	check(<-ended)
}

func order(n int) *message.Message {
	md := events.Metadata{Source: "shop", Type: "order.created", CorrelationID: "cart-7"}
	msg := message.NewMessage(fmt.Sprint("order-", n), fmt.Appendf(nil, `{"orderId":%d}`, n))
	msg.Metadata = md.Encode()
	return msg
}

func newTransport() *memory.Transport {
	transport, err := memory.New(memory.Config{})
	check(err)
	return transport
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// All of it on a router of one's own, in the order in which it is right together.
func Example() {
	transport := newTransport()
	store, err := middleware.NewMemoryDedup(middleware.MemoryDedupConfig{})
	check(err)
	var gate middleware.Gate
	stopping, done := make(chan struct{}), make(chan struct{})
	circuit := middleware.NewCircuitBreaker(middleware.CircuitBreakerConfig{
		Breaker: circuitbreaker.NewBuilder[any]().WithFailureThreshold(10).Build(),
		Gate:    &gate, Stopping: stopping,
	})

	serve(transport, 2, done, func(msg *message.Message) error {
		md, _ := events.MetadataFrom(msg.Context())
		switch {
		case msg.UUID == "order-2":
			fmt.Println("order-2 is malformed")
			return middleware.Permanent(errors.New("no items"))
		case md.Attempt < 3:
			fmt.Println(msg.UUID, "fails at attempt", md.Attempt)
			return errors.New("mail server is down")
		}
		fmt.Println(msg.UUID, "succeeds at attempt", md.Attempt)
		close(done)
		return nil
	},
		middleware.Recover,
		middleware.HoldLimit(15*time.Minute),
		gate.Middleware(stopping),
		middleware.Logging(middleware.LoggingConfig{Subscription: orders, Logger: slog.Default()}),
		middleware.Correlation(orders),
		middleware.Poison(middleware.PoisonConfig{
			Subscription: orders, Queue: transport, Gate: &gate, Stopping: stopping,
			OnPoison: func(msg *message.Message, err error) { fmt.Println(msg.UUID, "is poisoned:", err) },
		}),
		middleware.Redelivery(middleware.RedeliveryConfig{
			Subscription: orders, Requeuer: transport, Delays: []time.Duration{100 * time.Millisecond}, Stopping: stopping,
		}),
		middleware.Dedup(middleware.DedupConfig{Subscription: orders, Store: store}),
		middleware.Fallback(middleware.FallbackConfig{Handler: func(_ *message.Message, err error) error { return err }}),
		middleware.Retry(middleware.RetryConfig{Attempts: 2, MinDelay: time.Millisecond}),
		circuit.Wait,
		middleware.Bulkhead(bulkhead.New[any](10)),
		middleware.RateLimit(ratelimiter.NewBursty[any](1000, time.Second), stopping),
		circuit.Guard,
		middleware.Policies(timeout.New[any](time.Hour)),
		middleware.Timeout(time.Minute),
		middleware.Recover, //nolint:gocritic // the inner one makes errors of panics, the outer one is the last resort
	)
	// Output:
	// order-1 fails at attempt 1
	// order-1 fails at attempt 2
	// order-2 is malformed
	// order-2 is poisoned: no items
	// order-1 succeeds at attempt 3
}

func ExampleRecover() {
	done := make(chan struct{})
	logErrors := func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			_, err := h(msg)
			fmt.Println(err)
			close(done)
			return nil, nil
		}
	}
	serve(newTransport(), 1, done, func(*message.Message) error {
		panic("assignment to entry in nil map")
	}, logErrors, middleware.Recover)
	// Output: panic: assignment to entry in nil map
}

func ExampleGate() {
	var gate middleware.Gate
	release := gate.Hold("the warehouse is being counted")
	stopping, done := make(chan struct{}), make(chan struct{})
	time.AfterFunc(20*time.Millisecond, func() {
		fmt.Println("held:", gate.Reasons())
		release()
	})
	serve(newTransport(), 1, done, func(msg *message.Message) error {
		fmt.Println("handled:", msg.UUID)
		close(done)
		return nil
	}, gate.Middleware(stopping))
	// Output:
	// held: [the warehouse is being counted]
	// handled: order-1
}

func ExampleCorrelation() {
	done := make(chan struct{})
	serve(newTransport(), 1, done, func(msg *message.Message) error {
		md, _ := events.MetadataFrom(msg.Context())
		fmt.Println(md.Type, md.ID, "of", md.CorrelationID, "in", md.Subscription)
		close(done)
		return nil
	}, middleware.Correlation(orders))
	// Output: order.created order-1 of cart-7 in shop.orders
}

func ExamplePoison() {
	transport := newTransport()
	done := make(chan struct{})
	serve(transport, 1, done, func(*message.Message) error {
		return errors.New("unknown product")
	}, middleware.Poison(middleware.PoisonConfig{
		Subscription: orders,
		Queue:        transport,
		OnPoison: func(*message.Message, error) {
			for p, err := range transport.Poisoned(context.Background(), orders, transports.PoisonPage{}) {
				check(err)
				fmt.Printf("%s: %s, after %d attempt\n", p.Message.UUID, p.Reason, p.Attempts)
			}
			close(done)
		},
	}))
	// Output: order-1: unknown product, after 1 attempt
}

func ExampleRedelivery() {
	transport := newTransport()
	done := make(chan struct{})
	calls := 0
	serve(transport, 1, done, func(*message.Message) error {
		if calls++; calls == 1 {
			return errors.New("mail server is down")
		}
		fmt.Println("handled at call", calls)
		close(done)
		return nil
	}, middleware.Redelivery(middleware.RedeliveryConfig{
		Subscription: orders,
		Requeuer:     transport,
		Delays:       []time.Duration{10 * time.Millisecond, time.Minute, time.Hour},
		OnRedelivery: func(_ *message.Message, err error, delay time.Duration, _ bool) {
			fmt.Printf("%v: again in %v\n", err, delay)
		},
	}))
	// Output:
	// mail server is down: again in 10ms
	// handled at call 2
}

func ExampleDedup() {
	store, err := middleware.NewMemoryDedup(middleware.MemoryDedupConfig{Size: 1000})
	check(err)
	transport := newTransport()
	done := make(chan struct{})
	serve(transport, 1, done, func(msg *message.Message) error {
		fmt.Println("handled:", msg.UUID)
		return transport.Publish("order.created", order(1)) // a second copy
	}, middleware.Dedup(middleware.DedupConfig{
		Subscription: orders,
		Store:        store,
		OnDuplicate: func(msg *message.Message) {
			fmt.Println("duplicate:", msg.UUID)
			close(done)
		},
	}))
	// Output:
	// handled: order-1
	// duplicate: order-1
}

func ExampleRetry() {
	done := make(chan struct{})
	calls := 0
	serve(newTransport(), 1, done, func(*message.Message) error {
		if calls++; calls < 3 {
			return errors.New("connection reset")
		}
		fmt.Println("handled at call", calls)
		close(done)
		return nil
	}, middleware.Retry(middleware.RetryConfig{
		Attempts: 3,
		MinDelay: time.Millisecond,
		OnRetry: func(_ *message.Message, err error, attempt int) {
			fmt.Printf("attempt %d: %v\n", attempt, err)
		},
	}))
	// Output:
	// attempt 1: connection reset
	// attempt 2: connection reset
	// handled at call 3
}

// One bulkhead around the handlers of several subscriptions, or around a client
// that they share, bounds them together.
func ExampleBulkhead() {
	database := bulkhead.New[any](1)
	done := make(chan struct{})
	serve(newTransport(), 1, done, func(msg *message.Message) error {
		fmt.Println(msg.UUID, "is handled; room for another:", database.TryAcquirePermit())
		close(done)
		return nil
	}, middleware.Bulkhead(database))
	// Output: order-1 is handled; room for another: false
}

func ExampleTimeout() {
	done := make(chan struct{})
	serve(newTransport(), 1, done, func(msg *message.Message) error {
		<-msg.Context().Done()
		fmt.Println(context.Cause(msg.Context()))
		close(done)
		return nil
	}, middleware.Timeout(10*time.Millisecond))
	// Output: handler timed out after 10ms
}

func ExampleHoldLimit() {
	var gate middleware.Gate
	release := gate.Hold("the warehouse is being counted")
	done := make(chan struct{})
	returns := func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			out, err := h(msg)
			if err != nil {
				fmt.Println(err)
				release()
			}
			return out, err
		}
	}
	serve(newTransport(), 1, done, func(msg *message.Message) error {
		fmt.Println("handled when it came again:", msg.UUID)
		close(done)
		return nil
	}, returns, middleware.HoldLimit(10*time.Millisecond), gate.Middleware(nil))
	// Output:
	// delivery interrupted: held for too long
	// handled when it came again: order-1
}

func ExampleLogging() {
	transport := newTransport()
	done := make(chan struct{})
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "duration" { // which differ each time
			return slog.Attr{}
		}
		return a
	}}))
	serve(transport, 1, done, func(*message.Message) error {
		return errors.New("unknown product")
	}, middleware.Logging(middleware.LoggingConfig{Subscription: orders, Logger: logger}),
		middleware.Poison(middleware.PoisonConfig{
			Subscription: orders, Queue: transport,
			OnPoison: func(*message.Message, error) { close(done) },
		}))
	// Output: level=ERROR msg=delivery outcome=poisoned subscription=shop.orders event_type=order.created event_id=order-1 correlation_id=cart-7 attempt=1 error="unknown product"
}

// While the warehouse is down, its subscription is paused.
func ExampleCircuitBreaker() {
	transport := newTransport()
	done := make(chan struct{})
	var gate middleware.Gate
	circuit := middleware.NewCircuitBreaker(middleware.CircuitBreakerConfig{
		Breaker: circuitbreaker.NewBuilder[any]().WithDelay(10 * time.Millisecond).Build(), // opens at the first failure
		Gate:    &gate,
		OnChange: func(state circuitbreaker.State) {
			fmt.Println("circuit is", state, gate.Reasons())
			if state == circuitbreaker.ClosedState {
				close(done)
			}
		},
	})
	calls := 0
	serve(transport, 1, done, func(msg *message.Message) error {
		if calls++; calls == 1 {
			return errors.New("warehouse is down")
		}
		fmt.Println("handled:", msg.UUID)
		return nil
	}, gate.Middleware(nil), middleware.Retry(middleware.RetryConfig{}), circuit.Middleware)
	// Output:
	// circuit is open [circuit is open]
	// circuit is half-open [circuit is open]
	// handled: order-1
	// circuit is closed []
}

func ExampleRateLimit() {
	limiter := ratelimiter.NewSmoothWithMaxRate[any](20 * time.Millisecond) // one in 20 ms; can be shared
	stopping, done := make(chan struct{}), make(chan struct{})
	start := time.Now()
	n := 0
	serve(newTransport(), 3, done, func(*message.Message) error {
		if n++; n == 3 {
			fmt.Println("the third one has waited:", time.Since(start) >= 30*time.Millisecond)
			close(done)
		}
		return nil
	}, middleware.RateLimit(limiter, stopping))
	// Output: the third one has waited: true
}

func ExampleFallback() {
	done := make(chan struct{})
	serve(newTransport(), 1, done, func(*message.Message) error {
		return errors.New("mail server is down")
	}, middleware.Fallback(middleware.FallbackConfig{Handler: func(msg *message.Message, err error) error {
		fmt.Println(msg.UUID, "is printed, since the", err)
		close(done)
		return nil
	}}), middleware.Retry(middleware.RetryConfig{Attempts: 2, MinDelay: time.Millisecond}))
	// Output: order-1 is printed, since the mail server is down
}

// Any policy of failsafe-go, here its retry.
func ExamplePolicies() {
	done := make(chan struct{})
	calls := 0
	serve(newTransport(), 1, done, func(*message.Message) error {
		if calls++; calls < 3 {
			return errors.New("connection reset")
		}
		fmt.Println("handled at call", calls)
		close(done)
		return nil
	}, middleware.Policies(retrypolicy.NewBuilder[any]().WithMaxRetries(5).Build()))
	// Output: handled at call 3
}

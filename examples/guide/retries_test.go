package guide

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
)

var (
	errBusy     = errors.New("the mail server is busy")
	errNoSuch   = errors.New("there is no such address")
	errOptedOut = errors.New("the customer wants no mail")
)

// region verdicts

func sendWelcome(ctx context.Context, e events.CustomerCreated, send func(context.Context, string) error) error {
	err := send(ctx, e.Email)
	switch {
	case errors.Is(err, errNoSuch):
		return bus.Permanent(err) // no retry mends it: to the poison queue now
	case errors.Is(err, errBusy):
		return bus.RetryAfter(30*time.Second, err) // the server says when
	case errors.Is(err, errOptedOut):
		return bus.Discard(err) // nothing to do, and nobody needs to look at it
	}
	return err // nil, or tried again by the policy
}

// endregion

func Example_verdicts() {
	outcomes := make(chan bus.Delivery, 10)
	w := newWorld(bus.Config{OnDelivery: func(d bus.Delivery) { outcomes <- d }})
	answers := []error{nil, errNoSuch, errBusy, errOptedOut}
	bus.Subscribe(w.Bus, "welcome", func(ctx context.Context, e events.CustomerCreated) error {
		return sendWelcome(ctx, e, func(context.Context, string) error { return answers[e.CustomerID] })
	}, bus.Concurrency(1))
	ctx := context.Background()
	check(w.Start(ctx))
	for id := range answers {
		e := ada
		e.CustomerID = int64(id)
		if id == 0 {
			continue // not a valid customer
		}
		check(w.Publish(ctx, e))
		d := <-outcomes
		fmt.Println(d.Err, "-", d.Outcome, d.Delay)
	}
	w.end()
	// Output:
	// there is no such address - poisoned 0s
	// the mail server is busy - redelivered 30s
	// the customer wants no mail - discarded 0s
}

func Example_retryPolicy() {
	w := newWorld(bus.Config{OnDelivery: func(d bus.Delivery) { fmt.Println(d.Outcome, "after attempt", d.Metadata.Attempt) }})
	down := errors.New("the directory is down")
	send := func(context.Context, events.CustomerCreated) error { return down }
	// region policy
	bus.Subscribe(w.Bus, "welcome", send, bus.Retry(bus.RetryPolicy{
		Attempts: 2,                // calls in one delivery, with a short back-off
		MinDelay: time.Millisecond, // of that back-off, doubled each time
		Redeliveries: []time.Duration{ // then the transport keeps the event for so long,
			50 * time.Millisecond, 100 * time.Millisecond, // and each time it gets its Attempts again
		},
	}))
	// endregion
	ctx := context.Background()
	check(w.Start(ctx))
	check(w.Publish(ctx, ada))
	w.idle()
	w.end()
	// Output:
	// retried after attempt 1
	// redelivered after attempt 2
	// retried after attempt 3
	// redelivered after attempt 4
	// retried after attempt 5
	// poisoned after attempt 6
}

func Example_pauseOnPoison() {
	poisoned := make(chan struct{})
	w := newWorld(bus.Config{})
	var mended atomic.Bool
	// region pause
	bus.Subscribe(w.Bus, "ledger", func(_ context.Context, e events.CustomerCreated) error {
		if !mended.Load() {
			defer close(poisoned)
			return bus.Permanent(errors.New("the account is missing"))
		}
		fmt.Println("booked", e.CustomerID)
		return nil
	}, bus.PauseOnPoison()) // stand still rather than go on without it
	// endregion
	ctx := context.Background()
	check(w.Start(ctx))
	check(w.Publish(ctx, ada))
	<-poisoned
	for { // the pause follows the handler's return
		reasons, err := w.PauseReasons("ledger")
		check(err)
		if len(reasons) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	mended.Store(true)
	// region resume
	check(w.Resume("ledger")) // the event that it stopped at starts afresh
	// endregion
	w.idle()
	w.end()
	// Output: booked 42
}

func Example_circuitBreaker() {
	outcomes := make(chan bus.Delivery, 100)
	w := newWorld(bus.Config{OnDelivery: func(d bus.Delivery) { outcomes <- d }})
	var calls atomic.Int32
	send := func(context.Context, events.CustomerCreated) error {
		if calls.Add(1) <= 5 {
			return errors.New("connection refused")
		}
		return nil
	}
	// region breaker
	breaker := circuitbreaker.NewBuilder[any]().
		WithFailureThreshold(5).           // more than the attempts of one event
		WithDelay(100 * time.Millisecond). // then one event at a time may try
		Build()
	bus.Subscribe(w.Bus, "welcome", send, bus.CircuitBreaker(breaker))
	// endregion
	ctx := context.Background()
	check(w.Start(ctx))
	for range 10 {
		check(w.Publish(ctx, ada))
	}
	for handled := 0; handled < 10; {
		switch d := <-outcomes; d.Outcome {
		case bus.Handled:
			handled++
		case bus.Poisoned:
			fmt.Println("poisoned:", d.Err)
		}
	}
	w.end()
	fmt.Println("10 events handled, none poisoned")
	// Output: 10 events handled, none poisoned
}

func Example_fallback() {
	w := newWorld(bus.Config{})
	send := func(context.Context, events.CustomerCreated) error { return errors.New("no route") }
	// region fallback
	bus.Subscribe(w.Bus, "welcome", send,
		bus.Retry(bus.NoRetry()),
		bus.Fallback(func(_ context.Context, e events.CustomerCreated, err error) error {
			fmt.Println("a letter to", e.CustomerName, "since", err)
			return nil // an error here goes to the poison queue, with the first one
		}))
	// endregion
	ctx := context.Background()
	check(w.Start(ctx))
	check(w.Publish(ctx, ada))
	w.idle()
	w.end()
	// Output: a letter to Ada since no route
}

package guide

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// region run

// serve runs a bus until the process is told to end, and drains it.
func serve(ctx context.Context, b *bus.Bus) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return b.Run(ctx) // nil: everything in flight was finished
}

// endregion

// A handler in flight finishes although the process was told to end.
func TestServeDrains(t *testing.T) {
	t.Parallel()
	started, ended := make(chan struct{}), make(chan error, 1)
	outcomes := make(chan bus.Outcome, 1)
	w := newWorld(bus.Config{OnDelivery: func(d bus.Delivery) { outcomes <- d.Outcome }})
	defer mustClose(t, w.transport)
	goOn := make(chan struct{})
	bus.Subscribe(w.Bus, "slow", func(ctx context.Context, _ events.CustomerCreated) error {
		close(started)
		<-goOn
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- serve(ctx, w.Bus) }()
	eventually(t, func() bool { return !errors.Is(w.Publish(t.Context(), ada), bus.ErrNotRunning) })
	receive(t, started)
	cancel()
	eventually(t, func() bool { return errors.Is(w.Ready(), bus.ErrClosed) })
	close(goOn)
	if got := receive(t, outcomes); got != bus.Handled {
		t.Errorf("the event was %v, want handled", got)
	}
	if err := receive(t, ended); err != nil {
		t.Error(err)
	}
}

// region redrive

// redrive puts one poisoned event back, then ten, then the rest, and stops when the same
// fault is back.
func redrive(ctx context.Context, b *bus.Bus, subscription, reason string, settled func() error) error {
	same := func(p transports.Poisoned) bool { return p.Reason == reason }
	began := time.Now()
	for _, limit := range []int{1, 10, 0} { // 0 is all
		n, err := b.Redrive(ctx, subscription, bus.Selection{Filter: same, Limit: limit, Every: time.Millisecond})
		fmt.Println("redriven:", n)
		if err != nil {
			return err
		}
		if err := settled(); err != nil { // wait for them to be handled, or to fail again
			return err
		}
		for p, err := range b.Poisoned(ctx, subscription) {
			if err != nil {
				return err
			}
			if same(p) && p.LastFailure.After(began) {
				return fmt.Errorf("not mended yet: %s", p.Reason)
			}
		}
	}
	return nil
}

// endregion

func Example_redriveInSteps() {
	w := newWorld(bus.Config{})
	mended := false
	bus.Subscribe(w.Bus, "welcome", func(context.Context, events.CustomerCreated) error {
		if !mended {
			return errors.New("wrong template")
		}
		return nil
	}, bus.Retry(bus.NoRetry()), bus.Concurrency(1))
	ctx := context.Background()
	check(w.Start(ctx))
	for range 25 {
		check(w.Publish(ctx, ada))
	}
	w.idle()
	settled := func() error { w.idle(); return nil }

	// region dryrun
	n, err := w.Redrive(ctx, "welcome", bus.Selection{DryRun: true}) // counts, and moves nothing
	// endregion
	check(err)
	fmt.Println("poisoned:", n)
	fmt.Println(redrive(ctx, w.Bus, "welcome", "wrong template", settled))
	mended = true
	fmt.Println(redrive(ctx, w.Bus, "welcome", "wrong template", settled))
	w.end()
	// Output:
	// poisoned: 25
	// redriven: 1
	// not mended yet: wrong template
	// redriven: 1
	// redriven: 10
	// redriven: 14
	// <nil>
}

func Example_depth() {
	w := newWorld(bus.Config{})
	s := bus.Subscribe(w.Bus, "welcome", func(context.Context, events.CustomerCreated) error {
		return bus.Permanent(errors.New("wrong template"))
	})
	ctx := context.Background()
	check(w.Start(ctx))
	check(w.Publish(ctx, ada))
	w.idle()
	var transport transports.Transport = w.transport
	// region depth
	if r, ok := transport.(transports.DepthReporter); ok { // memory, rabbitmq and sql can tell
		depth, err := r.Depth(ctx, s.Name()) // "shop.welcome": the service, then the subscription
		check(err)
		fmt.Printf("%+v\n", depth) // -1, transports.UnknownDepth, is what it can't count
	}
	// endregion
	other := w.broker.Connect()
	// region operator
	// A program of the operator's: the same service and name, and not started.
	b, err := bus.New(other, bus.Config{Source: "operator", Service: "shop"})
	check(err)
	bus.SubscribeRaw(b, "welcome", []string{"#"}, func(context.Context, bus.Raw) error { return nil })
	n, err := b.DiscardPoisoned(ctx, "welcome", bus.Selection{Filter: func(p transports.Poisoned) bool {
		return p.Reason == "wrong template"
	}})
	// endregion
	check(err)
	fmt.Println("discarded:", n)
	check(other.Close())
	w.end()
	// Output:
	// {Ready:0 Delayed:0 InFlight:0 Poisoned:1 AtLeast:{Ready:false Delayed:false InFlight:false Poisoned:false}}
	// discarded: 1
}

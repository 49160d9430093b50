package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

const longestDelay = 720 * time.Hour

// impatient is a transport whose delays are limited, as RabbitMQ's are.
type impatient struct{ *memory.Transport }

func (impatient) LongestDelay() time.Duration { return longestDelay }

func (i impatient) Requeue(ctx context.Context, subscription string, msg *message.Message, delay time.Duration) error {
	if delay > longestDelay {
		return fmt.Errorf("%w: a delay of %v", transports.ErrUnsupported, delay)
	}
	return i.Transport.Requeue(ctx, subscription, msg, delay)
}

func TestRedeliveryOverTheLongestDelayIsRefused(t *testing.T) {
	t.Parallel()
	b := newBus(t, impatient{connect(t, newBroker(t, memory.Config{}))}, bus.Config{Source: "shop"})
	policy := bus.Retry(bus.RetryPolicy{Redeliveries: []time.Duration{time.Second, longestDelay, longestDelay + 1}})
	bus.Subscribe(b, "a", nothing, policy)
	bus.Subscribe(b, "waits-in-place", nothing, policy, bus.Ordered())
	err := b.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), `subscription "a": Retry.Redeliveries[2] is 720h`) || strings.Contains(err.Error(), `"waits-in-place": Retry`) {
		t.Errorf("Start returned %v, want the delay that is too long", err)
	}
}

// A handler that asks for a delay that the transport can't keep loses neither the event nor
// the place of another one.
func TestRetryAfterTheLongestDelayIsPoisoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := impatient{connect(t, newBroker(t, memory.Config{}))}
		b := newBus(t, transport, bus.Config{Source: "shop"})
		boom, handled := errors.New("boom"), make(chan int, 2)
		bus.Subscribe(b, "a", func(_ context.Context, e placed) error {
			handled <- e.N
			if e.N == 1 {
				return bus.RetryAfter(longestDelay+time.Hour, boom)
			}
			return nil
		}, bus.Concurrency(1))
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = b.Shutdown(context.Background()) }()
		if err := b.PublishAll(t.Context(), placed{N: 1}, placed{N: 2}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(handled) != 2 {
			t.Fatalf("%d events were handled, want both", len(handled))
		}
		for p, err := range b.Poisoned(t.Context(), "a") {
			if err != nil || !strings.Contains(p.Reason, "boom") || !strings.Contains(p.Reason, "a delay of 721h") {
				t.Errorf("poisoned for %q: %v", p.Reason, err)
			}
			return
		}
		t.Error("nothing is in the poison queue")
	})
}

package bus_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports/memory"
)

func nothing(context.Context, placed) error { return nil }

func TestReadyFollowsTheLifeOfTheBus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", nothing)
		if err := s.Ready(); !errors.Is(err, bus.ErrNotRunning) {
			t.Errorf("before Start: %v", err)
		}
		s.start()
		if err := s.Ready(); err != nil {
			t.Errorf("after Start: %v", err)
		}
		if err := s.Pause("a"); err != nil {
			t.Fatal(err)
		}
		if err := s.Ready(); err != nil {
			t.Errorf("paused: %v", err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Ready(); !errors.Is(err, bus.ErrClosed) {
			t.Errorf("after Shutdown: %v", err)
		}
	})
}

// A service that drains must not be sent any more work.
func TestReadyEndsWhenTheShutdownBegins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		busy, finish := make(chan struct{}), make(chan struct{})
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error {
			close(busy)
			<-finish
			return nil
		})
		s.start()
		s.publish(placed{N: 1})
		<-busy
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_ = s.Shutdown(ended) // begins it
		if err := s.Ready(); !errors.Is(err, bus.ErrClosed) {
			t.Errorf("while it drains: %v", err)
		}
		close(finish)
	})
}

func TestReadySaysWhichSubscriptionWasLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := connect(t, newBroker(t, memory.Config{}))
		b := newBus(t, transport, bus.Config{Source: "shop"})
		bus.Subscribe(b, "a", nothing)
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := transport.RemoveSubscription(t.Context(), "shop.a"); err != nil {
			t.Fatal(err)
		}
		_ = b.Wait()
		var lost *bus.SubscriptionLostError
		if err := b.Ready(); !errors.Is(err, bus.ErrClosed) || !errors.As(err, &lost) {
			t.Errorf("Ready returned %v, want ErrClosed with a SubscriptionLostError", err)
		}
	})
}

func TestReadyWithoutSubscriptions(t *testing.T) {
	t.Parallel()
	s := newSetup(t, bus.Config{})
	if err := s.Ready(); err != nil {
		t.Errorf("a bus that only publishes needs no Start, and Ready returned %v", err)
	}
	bus.Subscribe[placed](s.Bus, "a", nil)
	if err := s.Ready(); err == nil || errors.Is(err, bus.ErrNotRunning) {
		t.Errorf("with a fault of configuration: %v", err)
	}
}

func TestSubscriptionsAreListedByName(t *testing.T) {
	t.Parallel()
	s := newSetup(t, bus.Config{})
	bus.Subscribe(s.Bus, "b", nothing)
	bus.Subscribe(s.Bus, "a", nothing)
	if got := s.Subscriptions(); !slices.Equal(got, []string{"b", "a"}) {
		t.Errorf("Subscriptions() = %v", got)
	}
}

package bus_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// interruptible is a transport that tells of what its subscriptions lack.
type interruptible struct {
	transports.Transport
	tell map[string]func(transports.Interruption)
}

func (i interruptible) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	i.tell[s.Name] = s.OnInterruption
	return i.Transport.Subscribe(ctx, s)
}

// A bus with a subscription that has had no consumer for some seconds is not ready, and says
// which one and why.
func TestReadyEndsWithTheConsumerOfASubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := interruptible{connect(t, newBroker(t, memory.Config{})), make(map[string]func(transports.Interruption))}
		b := newBus(t, broker, bus.Config{Source: "shop"})
		bus.Subscribe(b, "a", nothing)
		bus.Subscribe(b, "b", nothing)
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = b.Shutdown(context.Background()) }()
		lost, refused := errors.New("connection lost"), errors.New("refused")
		broker.tell["shop.a"](transports.Interruption{Cause: lost})
		time.Sleep(5*time.Second - 1)
		if err := b.Ready(); err != nil {
			t.Errorf("a node may restart: %v", err)
		}
		broker.tell["shop.a"](transports.Interruption{Cause: refused}) // of the same interruption
		time.Sleep(time.Nanosecond)
		err := b.Ready()
		interrupted, ok := errors.AsType[*bus.InterruptedError](err)
		if !ok || !errors.Is(err, refused) || errors.Is(err, lost) || interrupted.Subscription != "shop.a" || interrupted.For != 5*time.Second {
			t.Errorf("Ready returned %v, want an InterruptedError with the last cause", err)
		}
		broker.tell["shop.b"](transports.Interruption{Cause: lost})
		time.Sleep(5 * time.Second)
		if err := b.Ready(); !errors.Is(err, lost) || !errors.Is(err, refused) || !strings.Contains(err.Error(), "shop.b") {
			t.Errorf("Ready returned %v, want both subscriptions", err)
		}
		broker.tell["shop.a"](transports.Interruption{})
		broker.tell["shop.b"](transports.Interruption{})
		if err := b.Ready(); err != nil {
			t.Errorf("after the end of the interruptions: %v", err)
		}
	})
}

// The user's callback hears of missing events alone.
func TestOnInterruptionIsForMissingEvents(t *testing.T) {
	t.Parallel()
	broker := interruptible{connect(t, newBroker(t, memory.Config{})), make(map[string]func(transports.Interruption))}
	b := newBus(t, broker, bus.Config{Source: "shop"})
	var told []bool
	s := bus.Subscribe(b, "a", nothing, bus.Ephemeral(), bus.OnInterruption(func(missing bool) { told = append(told, missing) }))
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Shutdown(context.Background()) }()
	tell, lost := broker.tell[s.Name()], errors.New("lost")
	tell(transports.Interruption{Cause: lost}) // nothing is missing
	tell(transports.Interruption{})
	tell(transports.Interruption{Cause: lost, Missing: true})
	tell(transports.Interruption{Cause: lost}) // the events that were missing before still are
	tell(transports.Interruption{})
	if len(told) != 2 || !told[0] || told[1] {
		t.Errorf("told %v; want true, then false", told)
	}
}

package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports/memory"
)

// What comes again at once goes on where it was; what comes later under its id may be one
// that was redriven, for a fresh start.
func TestAttemptsOfAnEventThatWentBackAreForgottenAfterAMinute(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]int{time.Second: 2, 2 * time.Minute: 1} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				in := make(chan *message.Message, 10)
				b := newBus(t, &scripted{deliveries: in}, bus.Config{Source: "shop"})
				var attempts notes[int]
				bus.Subscribe(b, "a", func(ctx context.Context, _ placed) error {
					md, _ := events.MetadataFrom(ctx)
					attempts.add(md.Attempt)
					switch len(attempts.get()) {
					case 1:
						return errors.New("no")
					case 2:
						return middleware.ErrInterrupted
					default:
						return nil
					}
				}, bus.Retry(exact(3)))
				if err := b.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				deliver := func() *message.Message {
					msg := message.NewMessage("event-1", []byte(`{"n":1}`))
					msg.Metadata["ce_type"], msg.Metadata["ce_source"] = "order.placed", "shop"
					in <- msg
					return msg
				}
				<-deliver().Nacked()
				pass(after)
				<-deliver().Acked()
				checkAll(t, "attempts", attempts.get(), []int{1, 2, want})
				close(in)
				if _, lost := errors.AsType[*bus.SubscriptionLostError](b.Wait()); !lost {
					t.Error("the subscription did not end")
				}
			})
		})
	}
}

// RabbitMQ counts from the delivery on, not from an event's turn.
func TestOrderedEventIsHeldNoLongerForHavingWaitedForItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := newCounting(t)
		b := newBus(t, transport, bus.Config{Source: "shop"})
		bus.Subscribe(b, "o", func(context.Context, placed) error {
			time.Sleep(14 * time.Minute) // virtual
			return nil
		}, bus.Ordered())
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.PublishAll(t.Context(), placed{N: 1}, placed{N: 2}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if err := b.Pause("o"); err != nil {
			t.Fatal(err)
		}
		pass(13*time.Minute + 30*time.Second)
		check(t, "gone back", transport.back.Load(), 0)
		pass(time.Minute)
		check(t, "gone back", transport.back.Load(), 1)
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestOrderedEventThatTheMiddlewareCanNotDealWithGoesBackInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		transport := newCounting(t)
		b := newBus(t, transport, bus.Config{
			Source:     "shop",
			OnDelivery: func(bus.Delivery) { panic("counter is broken") },
			Logger:     slog.New(slog.NewTextHandler(&log, nil)),
		})
		bus.Subscribe(b, "o", ignore[placed], bus.Ordered())
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), placed{N: 1}); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		check(t, "lines of the log on it", strings.Count(log.String(), "counter is broken"), 1)
		pass(14 * time.Minute)
		check(t, "gone back", transport.back.Load(), 0)
		pass(time.Minute + 10*time.Second)
		check(t, "gone back", transport.back.Load(), 1)
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestEachFailureIsLoggedOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		opts []bus.SubscribeOption
		want string
	}{
		"poisoned":                    {errors.New("boo"), nil, "level=ERROR msg=delivery outcome=poisoned"},
		"discarded":                   {bus.Discard(errors.New("boo")), nil, "level=INFO msg=delivery outcome=discarded"},
		"discarded, pause on poison":  {bus.Discard(errors.New("boo")), []bus.SubscribeOption{bus.PauseOnPoison()}, "level=INFO msg=delivery outcome=discarded"},
		"goes back, as it is stopped": {middleware.ErrInterrupted, nil, "level=DEBUG msg=delivery outcome=returned"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				s := newSetup(t, bus.Config{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
				calls := 0
				bus.Subscribe(s.Bus, "a", func(context.Context, placed) error {
					if calls++; calls > 1 {
						return nil
					}
					return c.err
				}, append(c.opts, bus.Retry(bus.NoRetry()))...)
				s.start()
				s.publish(placed{})
				pass(time.Second)
				if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				n := 0
				for line := range strings.Lines(log.String()) {
					if strings.Contains(line, "outcome=") && !strings.Contains(line, "outcome=handled") {
						n++
						check(t, "line is "+c.want, strings.Contains(line, c.want), true)
					}
				}
				check(t, "lines", n, 1)
				check(t, "a failure was called handled", calls == 1 && strings.Contains(log.String(), "outcome=handled"), false)
			})
		})
	}
}

// The router would log it once more.
func TestTroubleOfTheMiddlewareItselfIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		b := newBus(t, connect(t, newBroker(t, memory.Config{})), bus.Config{
			Source:     "shop",
			OnDelivery: func(bus.Delivery) { panic("counter is broken") },
			Logger:     slog.New(slog.NewTextHandler(&log, nil)),
		})
		bus.Subscribe(b, "a", ignore[placed])
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), placed{N: 1}); err != nil {
			t.Fatal(err)
		}
		pass(6 * time.Second) // it has gone back after 5, and come again
		check(t, "lines of the log on it", strings.Count(log.String(), "counter is broken"), 2)
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

package bus_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// counting is a transport that counts what comes back to it.
type counting struct {
	*memory.Transport
	back atomic.Int32
}

func (c *counting) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	in, err := c.Transport.Subscribe(ctx, s)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		for msg := range in {
			ctx := msg.Context()
			go func() {
				select {
				case <-msg.Acked():
				case <-msg.Nacked():
					c.back.Add(1)
				case <-ctx.Done():
				}
			}()
			select {
			case out <- msg:
			case <-ctx.Done():
			}
		}
	}()
	return out, nil
}

// SubscribeNotified is Subscribe, which watches the messages itself.
func (c *counting) SubscribeNotified(ctx context.Context, s transports.Subscription) (<-chan *message.Message, func(*message.Message), error) {
	in, err := c.Subscribe(ctx, s)
	return in, func(*message.Message) {}, err
}

func newCounting(t *testing.T) *counting {
	t.Helper()
	return &counting{Transport: connect(t, newBroker(t, memory.Config{}))}
}

// RabbitMQ closes the channel of a consumer that does not settle in half an hour.
func TestPausedEventsGoBackUncountedAfterHalfOfTheConsumerTimeout(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]bus.SubscribeOption{
		"unordered": {bus.Concurrency(2)},
		"ordered":   {bus.Ordered()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				transport := newCounting(t)
				b := newBus(t, transport, bus.Config{Source: "shop"})
				var order, attempts notes[int]
				bus.Subscribe(b, "a", func(ctx context.Context, e placed) error {
					md, _ := events.MetadataFrom(ctx)
					attempts.add(md.Attempt)
					order.add(e.N)
					return nil
				}, opts...)
				if err := b.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := b.Pause("a"); err != nil {
					t.Fatal(err)
				}
				if err := b.PublishAll(t.Context(), placed{N: 1}, placed{N: 2}, placed{N: 3}, placed{N: 4}); err != nil {
					t.Fatal(err)
				}
				pass(15*time.Minute - time.Second)
				check(t, "gone back too early", transport.back.Load(), 0)
				pass(2 * time.Second)
				if n := transport.back.Load(); n < 4 {
					t.Errorf("%d have gone back, want all 4", n)
				}
				pass(time.Hour)
				if n := transport.back.Load(); n > 5*4*2 {
					t.Errorf("%d have gone back in 75 minutes: in a loop", n)
				}
				if err := b.Resume("a"); err != nil {
					t.Fatal(err)
				}
				pass(time.Second)
				checkAll(t, "attempts", attempts.get(), []int{1, 1, 1, 1})
				if name == "ordered" {
					checkAll(t, "order", order.get(), []int{1, 2, 3, 4})
				}
				if err := b.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What goes back from an ordered subscription takes those behind it with it, whatever
// the reason.
func TestNothingOvertakesAnOrderedEventThatGoesBack(t *testing.T) {
	t.Parallel()
	for name, back := range map[string]func() error{
		"interrupted":           func() error { return middleware.ErrInterrupted },
		"goroutine of its end":  func() error { runtime.Goexit(); return nil },
		"crash after an effect": func() error { return fmt.Errorf("crash: %w", middleware.ErrInterrupted) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, bus.Config{})
				var a, b notes[int]
				failed := false
				bus.Subscribe(s.Bus, "o", func(_ context.Context, e placed) error {
					if e.Key == "b" {
						b.add(e.N)
						return nil
					}
					a.add(e.N)
					if e.N == 2 && !failed {
						failed = true
						return back()
					}
					return nil
				}, bus.Ordered(), bus.Concurrency(4), bus.WithoutDedup())
				s.start()
				var all []any
				var want []int
				for i := range 100 {
					all = append(all, placed{i, "a"}, placed{i, "b"})
					want = append(want, i)
				}
				s.publish(all...)
				pass(10 * time.Second)
				checkAll(t, "order of the other key", b.get(), want)
				checkAll(t, "order", a.get(), append([]int{0, 1, 2}, want[2:]...))
			})
		})
	}
}

// Behind an event that waits for its retries, others wait as long, and can't wait as long
// again.
func TestOrderedEventsThatWaitBehindOthersGoBackInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := newCounting(t)
		b := newBus(t, transport, bus.Config{Source: "shop"})
		var calls notes[string]
		running := 0
		bus.Subscribe(b, "o", func(_ context.Context, e placed) error {
			if running++; running > 1 {
				t.Error("two at a time")
			}
			defer func() { running-- }()
			calls.add(label(e))
			if e.N == 1 {
				time.Sleep(20 * time.Minute) // virtual: a handler is not interrupted
			}
			return nil
		}, bus.Ordered())
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.PublishAll(t.Context(), placed{1, "a"}, placed{2, "a"}, placed{3, "a"}); err != nil {
			t.Fatal(err)
		}
		pass(16 * time.Minute)
		if n := transport.back.Load(); n < 2 {
			t.Errorf("%d have gone back, want 2", n)
		}
		checkAll(t, "calls", calls.get(), []string{"a1"})
		pass(5 * time.Minute)
		checkAll(t, "calls", calls.get(), []string{"a1", "a2", "a3"})
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// The head of a lane goes back when one behind it has come again already.
func TestOrderedEventThatGoesBackIsNotOvertakenByOneThatCameAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var calls notes[string]
		first := true
		bus.Subscribe(s.Bus, "o", func(_ context.Context, e placed) error {
			calls.add(label(e))
			if e.N == 1 && first {
				first = false
				time.Sleep(20 * time.Minute) // virtual
				return middleware.ErrInterrupted
			}
			return nil
		}, bus.Ordered())
		s.start()
		s.publish(placed{1, "a"}, placed{2, "a"}, placed{3, "a"})
		pass(time.Hour)
		checkAll(t, "calls", calls.get(), []string{"a1", "a1", "a2", "a3"})
	})
}

// It was taken by another replica, or deleted.
func TestOrderedLaneGoesOnWhenAnEventDoesNotComeAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := make(chan *message.Message, 10)
		b := newBus(t, &scripted{deliveries: in}, bus.Config{Source: "shop", AllowVolatileDedup: true})
		var calls notes[int]
		bus.Subscribe(b, "o", func(_ context.Context, e placed) error {
			calls.add(e.N)
			if e.N == 1 {
				return middleware.ErrInterrupted
			}
			return nil
		}, bus.Ordered(), bus.WithoutDedup())
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		deliver := func(n int) *message.Message {
			msg := message.NewMessage(fmt.Sprint("event-", n), fmt.Appendf(nil, `{"n":%d}`, n))
			msg.Metadata["ce_type"], msg.Metadata["ce_source"] = "order.placed", "shop"
			in <- msg
			pass(time.Second)
			return msg
		}
		deliver(1)
		<-deliver(2).Nacked() // it waits for the first one
		pass(2 * time.Minute)
		<-deliver(2).Acked()
		checkAll(t, "calls", calls.get(), []int{1, 2})
		close(in)
		if _, lost := errors.AsType[*bus.SubscriptionLostError](b.Wait()); !lost {
			t.Error("the subscription did not end")
		}
	})
}

// scripted is a transport whose deliveries a test makes.
type scripted struct {
	transports.Transport
	deliveries chan *message.Message
}

func (s *scripted) Subscribe(context.Context, transports.Subscription) (<-chan *message.Message, error) {
	return s.deliveries, nil
}

// The new replica is to take it, in its place: it can't be put aside.
func TestOrderedEventOfAnUnknownTypeKeepsItsPlaceForADayThenIsPoisoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := newCounting(t)
		b := newBus(t, transport, bus.Config{Source: "shop"})
		var got notes[int]
		bus.Subscribe(b, "a", got.numbers(number), bus.Ordered())
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		newReplica(t, &setup{transport: transport.Transport}, "order.paid")
		if err := b.PublishAll(t.Context(), paid{}, placed{N: 1}); err != nil {
			t.Fatal(err)
		}
		poisoned := func() (n int) {
			for _, err := range b.Poisoned(t.Context(), "a") {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			return n
		}
		pass(23 * time.Hour)
		check(t, "poisoned after 23 hours", poisoned(), 0)
		check(t, "those behind it that were handled", len(got.get()), 0)
		if n := transport.back.Load(); n < 80 || n > 400 {
			t.Errorf("%d have gone back in 23 hours, want one or two each 15 minutes", n)
		}
		pass(2 * time.Hour)
		check(t, "poisoned after 25 hours", poisoned(), 1)
		checkAll(t, "handled then", got.get(), []int{1})
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAttemptsAreKeptForAnEventThatGoesBack(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]bus.SubscribeOption{"unordered": nil, "ordered": {bus.Ordered()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, bus.Config{})
				var attempts notes[int]
				bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
					md, _ := events.MetadataFrom(ctx)
					attempts.add(md.Attempt)
					if md.Attempt == 2 {
						return nil
					}
					if err := s.Pause("a"); err != nil {
						return err
					}
					return errors.New("no")
				}, append(opts, bus.Retry(exact(1, time.Minute, time.Minute)))...)
				s.start()
				s.publish(placed{})
				pass(20 * time.Minute) // it is held before its second attempt, and goes back
				if err := s.Resume("a"); err != nil {
					t.Fatal(err)
				}
				settle()
				checkAll(t, "attempts", attempts.get(), []int{1, 2})
			})
		})
	}
}

// brokenWrites is a transport whose poison queue and delays can't be written.
type brokenWrites struct {
	*counting
	hang  bool
	calls atomic.Int32
}

func (b *brokenWrites) write(ctx context.Context) error {
	b.calls.Add(1)
	if b.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return errors.New("disk full")
}

func (b *brokenWrites) Poison(ctx context.Context, _ string, _ *message.Message) error {
	return b.write(ctx)
}

func (b *brokenWrites) Requeue(ctx context.Context, _ string, _ *message.Message, _ time.Duration) error {
	return b.write(ctx)
}

func TestEventThatCanNotBePoisonedOrRequeuedGoesBackAfterHalfOfTheConsumerTimeout(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]bus.RetryPolicy{"poison": bus.NoRetry(), "requeue": exact(1, time.Second)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				transport := &brokenWrites{counting: newCounting(t)}
				b := newBus(t, transport, bus.Config{Source: "shop"})
				var calls notes[int]
				bus.Subscribe(b, "a", func(_ context.Context, e placed) error {
					calls.add(e.N)
					return errors.New("no")
				}, bus.Retry(policy), bus.Concurrency(1))
				if err := b.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := b.Publish(t.Context(), placed{N: 1}); err != nil {
					t.Fatal(err)
				}
				pass(14 * time.Minute)
				check(t, "gone back", transport.back.Load(), 0)
				check(t, "calls of the handler", len(calls.get()), 1)
				pass(2 * time.Minute)
				check(t, "gone back", transport.back.Load(), 1)
				check(t, "calls of the handler", len(calls.get()), 2)
				if err := b.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// It would outlast the time that handlers have after the hard stop.
func TestShutdownEndsInTimeThoughAWriteHangs(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]bus.RetryPolicy{"poison": bus.NoRetry(), "requeue": exact(1, time.Second)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				transport := &brokenWrites{counting: newCounting(t), hang: true}
				b := newBus(t, transport, bus.Config{Source: "shop", ShutdownTimeout: time.Second})
				bus.Subscribe(b, "a", func(context.Context, placed) error { return errors.New("no") }, bus.Retry(policy))
				if err := b.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := b.Publish(t.Context(), placed{N: 1}); err != nil {
					t.Fatal(err)
				}
				settle()
				check(t, "writes", transport.calls.Load(), 1)
				start := time.Now()
				if err := b.Shutdown(t.Context()); err != nil {
					t.Errorf("Shutdown: %v", err)
				}
				check(t, "time taken", time.Since(start), 4*time.Second) // a second, and three for the write
				d, err := transport.Depth(t.Context(), "shop.a")
				if err != nil {
					t.Fatal(err)
				}
				check(t, "back in the queue", d.Ready, 1)
			})
		})
	}
}

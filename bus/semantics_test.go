package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

func TestNewSubscriptionStartsAtNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{})
		newSetupOn(t, broker, bus.Config{}).publish(placed{N: 1})
		s := newSetupOn(t, broker, bus.Config{})
		var got notes[int]
		bus.Subscribe(s.Bus, "a", got.numbers(number))
		s.start()
		s.publish(placed{N: 2})
		settle()
		checkAll(t, "handled", got.get(), []int{2})
	})
}

func TestTwoNamesBothGetAnEventAndReplicasOfOneNameShareThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{})
		var first, second, other notes[int]
		slowly := func(got *notes[int]) func(context.Context, placed) error {
			return func(ctx context.Context, e placed) error {
				time.Sleep(time.Second) // virtual
				return got.numbers(number)(ctx, e)
			}
		}
		replica := newSetupOn(t, broker, bus.Config{})
		bus.Subscribe(replica.Bus, "a", slowly(&second), bus.Concurrency(1))
		replica.start()
		s := newSetupOn(t, broker, bus.Config{})
		bus.Subscribe(s.Bus, "a", slowly(&first), bus.Concurrency(1))
		bus.Subscribe(s.Bus, "b", slowly(&other))
		s.start()
		for i := range 10 {
			s.publish(placed{N: i})
		}
		pass(time.Minute)
		check(t, "handled by the replicas together", len(first.get())+len(second.get()), 10)
		check(t, "handled by each of them", len(first.get()) > 0 && len(second.get()) > 0, true)
		check(t, "handled by the other name", len(other.get()), 10)
	})
}

func TestOrderedSubscriptionHasOneActiveReplica(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{})
		var got [2]notes[int]
		var replicas [2]*setup
		for i := range replicas {
			replicas[i] = newSetupOn(t, broker, bus.Config{})
			bus.Subscribe(replicas[i].Bus, "a", got[i].numbers(number), bus.Ordered())
			replicas[i].start()
		}
		replicas[0].publish(placed{N: 1}, placed{N: 2}, placed{N: 3})
		settle()
		checkAll(t, "handled by the active one", got[0].get(), []int{1, 2, 3})
		check(t, "handled by the other one", len(got[1].get()), 0)
		if err := replicas[0].Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		replicas[1].publish(placed{N: 4})
		settle()
		checkAll(t, "handled by the other one then", got[1].get(), []int{4})
	})
}

// batches counts the batches that a transport is given.
type batches struct {
	*memory.Transport
	sizes notes[int]
}

func (b *batches) PublishBatch(ctx context.Context, batch []transports.Outgoing) error {
	b.sizes.add(len(batch))
	return b.Transport.PublishBatch(ctx, batch)
}

func TestPublishAllIsOneBatch(t *testing.T) {
	t.Parallel()
	transport := &batches{Transport: connect(t, newBroker(t, memory.Config{}))}
	b := newBus(t, transport, bus.Config{Source: "shop"})
	if err := b.PublishAll(t.Context(), placed{N: 1}, paid{N: 2}, placed{N: 3}); err != nil {
		t.Fatal(err)
	}
	checkAll(t, "sizes", transport.sizes.get(), []int{3})
}

// watched is a transport that looks whether what it is to keep is settled already.
type watched struct {
	*memory.Transport
	delivered atomic.Pointer[message.Message]
	tooSoon   atomic.Bool
	writes    atomic.Int32
}

func (w *watched) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	in, err := w.Transport.Subscribe(ctx, s)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		for msg := range in {
			w.delivered.Store(msg)
			out <- msg
		}
	}()
	return out, nil
}

// SubscribeNotified is Subscribe, which watches the messages itself.
func (w *watched) SubscribeNotified(ctx context.Context, s transports.Subscription) (<-chan *message.Message, func(*message.Message), error) {
	in, err := w.Subscribe(ctx, s)
	return in, func(*message.Message) {}, err
}

func (w *watched) write() {
	w.writes.Add(1)
	time.Sleep(time.Second) // virtual: until the broker has confirmed
	select {
	case <-w.delivered.Load().Acked():
		w.tooSoon.Store(true)
	default:
	}
}

func (w *watched) Poison(ctx context.Context, subscription string, msg *message.Message) error {
	w.write()
	return w.Transport.Poison(ctx, subscription, msg)
}

func (w *watched) Requeue(ctx context.Context, subscription string, msg *message.Message, delay time.Duration) error {
	w.write()
	return w.Transport.Requeue(ctx, subscription, msg, delay)
}

// A crash in between leaves two copies, and in the other order none.
func TestEventIsStoredInThePoisonQueueOrTheDelayBeforeItIsAcknowledged(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]bus.RetryPolicy{"poison": bus.NoRetry(), "requeue": exact(1, time.Hour)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				transport := &watched{Transport: connect(t, newBroker(t, memory.Config{}))}
				b := newBus(t, transport, bus.Config{Source: "shop"})
				bus.Subscribe(b, "a", func(context.Context, placed) error { return errors.New("no") }, bus.Retry(policy))
				if err := b.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := b.Publish(t.Context(), placed{}); err != nil {
					t.Fatal(err)
				}
				pass(time.Minute)
				check(t, "writes", transport.writes.Load(), 1)
				check(t, "acknowledged too soon", transport.tooSoon.Load(), false)
				<-transport.delivered.Load().Acked()
				if err := b.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestShutdownLeavesTheTransportToItsOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", ignore[placed])
		s.start()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, "error of the transport's Ping", s.transport.Ping(t.Context()), nil)
	})
}

func TestDeduplicationKeyIsSubscriptionSourceAndID(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ids, sources [2]string
		handled      int
	}{
		"same id and source": {[2]string{"1", "1"}, [2]string{"shop", "shop"}, 1},
		"another source":     {[2]string{"1", "1"}, [2]string{"shop", "warehouse"}, 2},
		"another id":         {[2]string{"1", "2"}, [2]string{"shop", "shop"}, 2},
		"without an id":      {[2]string{"", ""}, [2]string{"shop", "shop"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, bus.Config{})
				var a, b notes[int]
				bus.Subscribe(s.Bus, "a", a.numbers(number))
				bus.Subscribe(s.Bus, "b", b.numbers(number))
				s.start()
				for i := range 2 { // as a foreign service might
					msg := message.NewMessage(c.ids[i], fmt.Appendf(nil, `{"n":%d}`, i))
					msg.Metadata["ce_type"], msg.Metadata["ce_source"] = "order.placed", c.sources[i]
					if err := s.transport.Publish("order.placed", msg); err != nil {
						t.Fatal(err)
					}
				}
				pass(time.Minute)
				check(t, "handled by a", len(a.get()), c.handled)
				check(t, "handled by b", len(b.get()), c.handled)
			})
		})
	}
}

// claims counts the claims of a deduplication store.
type claims struct {
	*middleware.MemoryDedup
	n atomic.Int32
}

func (c *claims) Claim(ctx context.Context, key middleware.DedupKey) (middleware.Claim, error) {
	c.n.Add(1)
	return c.MemoryDedup.Claim(ctx, key)
}

// A claim that is held has to be renewed, and keeps copies elsewhere waiting.
func TestWhatIsHeldByAPauseOrAnOpenCircuitIsNotClaimed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pause", "circuit"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				memoryDedup, err := middleware.NewMemoryDedup(middleware.MemoryDedupConfig{})
				if err != nil {
					t.Fatal(err)
				}
				store := &claims{MemoryDedup: memoryDedup}
				s := newSetup(t, bus.Config{Dedup: store})
				cb := breakerFor(10 * time.Minute)
				bus.Subscribe(s.Bus, "a", ignore[placed], bus.CircuitBreaker(cb))
				s.start()
				if name == "pause" {
					if err := s.Pause("a"); err != nil {
						t.Fatal(err)
					}
				} else {
					cb.Open()
				}
				for i := range 10 {
					s.publish(placed{N: i})
				}
				pass(9 * time.Minute)
				check(t, "held", s.depth("a").InFlight, 10)
				check(t, "claims", store.n.Load(), 0)
				if err := s.Resume("a"); err != nil {
					t.Fatal(err)
				}
				pass(2 * time.Minute)
				check(t, "claims", store.n.Load(), 10)
				check(t, "held", s.depth("a").InFlight, 0)
			})
		})
	}
}

func TestTimeoutIsOfEachAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		calls := 0
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
			if calls++; calls == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			time.Sleep(900 * time.Millisecond) // virtual
			return ctx.Err()
		}, bus.Timeout(time.Second), bus.Retry(exact(2)))
		s.start()
		s.publish(placed{})
		pass(time.Minute)
		checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"retried", "handled"})
	})
}

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
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// exact is a retry policy whose delays tests can count on.
func exact(attempts int, redeliveries ...time.Duration) bus.RetryPolicy {
	if redeliveries == nil {
		redeliveries = []time.Duration{}
	}
	return bus.RetryPolicy{Attempts: attempts, MinDelay: 1, MaxDelay: 1, Redeliveries: redeliveries}
}

func TestFailingEventIsRetriedInPlaceThenRedeliveredThenPoisoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var attempts notes[int]
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
			md, _ := events.MetadataFrom(ctx)
			attempts.add(md.Attempt)
			return fmt.Errorf("attempt %d: %w", md.Attempt, context.DeadlineExceeded)
		}, bus.Retry(exact(2, time.Second, time.Minute)))
		s.start()
		start := time.Now()
		if err := s.Publish(t.Context(), placed{N: 7}, bus.WithID("e1")); err != nil {
			t.Fatal(err)
		}
		pass(time.Millisecond)
		checkAll(t, "attempts at once", attempts.get(), []int{1, 2})
		check(t, "delayed", s.depth("a").Delayed, 1)
		pass(time.Second)
		checkAll(t, "attempts after a second", attempts.get(), []int{1, 2, 3, 4})
		pass(time.Minute)
		checkAll(t, "attempts in all", attempts.get(), []int{1, 2, 3, 4, 5, 6})
		checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"retried", "redelivered", "retried", "redelivered", "retried", "poisoned"})

		poisoned := s.poisoned("a")
		check(t, "poisoned events", len(poisoned), 1)
		p := poisoned[0]
		check(t, "id", p.Message.UUID, "e1")
		check(t, "payload", string(p.Message.Payload), `{"n":7}`)
		check(t, "source", p.Message.Metadata["ce_source"], "shop")
		check(t, "reason", p.Reason, "attempt 6: context deadline exceeded")
		check(t, "error type", p.ErrorType, "context.deadlineExceededError")
		check(t, "attempts", p.Attempts, 6)
		check(t, "first failure", p.FirstFailure.Equal(start), true)
		check(t, "last failure", p.LastFailure.After(start.Add(time.Minute)), true)
		check(t, "subscription", p.Subscription, "shop.a")
		check(t, "topic", p.Topic, "order.placed")
		check(t, "service", p.Service, "shop")
		d := s.depth("a")
		check(t, "what is left in the queue", d.Ready+d.Delayed+d.InFlight, 0)
	})
}

func TestEventThatRecoversIsHandledOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		calls := 0
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error {
			if calls++; calls < 4 {
				return errors.New("not yet")
			}
			return nil
		}, bus.Retry(exact(2, time.Second)))
		s.start()
		s.publish(placed{})
		pass(time.Hour)
		check(t, "calls", calls, 4)
		checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"retried", "redelivered", "retried", "handled"})
		check(t, "attempt of the success", s.steps.all[3].Metadata.Attempt, 4)
	})
}

func TestRedeliveryReachesOnlyTheSubscriptionThatFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var good, bad notes[int]
		bus.Subscribe(s.Bus, "good", good.numbers(number))
		bus.Subscribe(s.Bus, "bad", func(_ context.Context, e placed) error {
			bad.add(e.N)
			return errors.New("no")
		}, bus.Retry(exact(1, time.Second)))
		s.start()
		s.publish(placed{N: 1})
		pass(time.Minute)
		checkAll(t, "good", good.get(), []int{1})
		checkAll(t, "bad", bad.get(), []int{1, 1})
		check(t, "poisoned for good", len(s.poisoned("good")), 0)
		check(t, "poisoned for bad", len(s.poisoned("bad")), 1)
	})
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	for name, c := range map[string]struct {
		err      func(call int) error
		calls    int
		poisoned int
		outcomes []string
		within   time.Duration
	}{
		"nil acknowledges":                  {func(int) error { return nil }, 1, 0, []string{"handled"}, 0},
		"Permanent poisons at once":         {func(int) error { return bus.Permanent(cause) }, 1, 1, []string{"poisoned"}, 0},
		"wrapped Permanent counts too":      {func(int) error { return fmt.Errorf("x: %w", bus.Permanent(cause)) }, 1, 1, []string{"poisoned"}, 0},
		"Discard acknowledges and counts":   {func(int) error { return bus.Discard(cause) }, 1, 0, []string{"discarded"}, 0},
		"RetryAfter uses up a redelivery":   {func(int) error { return bus.RetryAfter(time.Hour, cause) }, 2, 1, []string{"redelivered", "poisoned"}, time.Hour},
		"Permanent after a retry":           {func(n int) error { return []error{cause, bus.Permanent(cause)}[n-1] }, 2, 1, []string{"retried", "poisoned"}, 0},
		"a panic follows the retry policy":  {func(int) error { panic("boo") }, 4, 1, []string{"retried", "redelivered", "retried", "poisoned"}, time.Second},
		"an error follows the retry policy": {func(int) error { return cause }, 4, 1, []string{"retried", "redelivered", "retried", "poisoned"}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, bus.Config{})
				calls := 0
				bus.Subscribe(s.Bus, "a", func(context.Context, placed) error {
					calls++
					return c.err(calls)
				}, bus.Retry(exact(2, time.Second)))
				s.start()
				s.publish(placed{})
				pass(c.within + time.Millisecond)
				check(t, "calls", calls, c.calls)
				check(t, "poisoned", len(s.poisoned("a")), c.poisoned)
				checkAll(t, "outcomes", s.steps.outcomes("a"), c.outcomes)
			})
		})
	}
}

func TestPanicIsPoisonedWithItsStack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error { panic(errors.New("boo")) }, bus.Retry(bus.NoRetry()))
		s.start()
		s.publish(placed{})
		settle()
		p := s.poisoned("a")[0]
		check(t, "reason", p.Reason, "panic: boo")
		check(t, "error type", p.ErrorType, "*errors.errorString")
		check(t, "stack names the handler", strings.Contains(p.Stack, "TestPanicIsPoisonedWithItsStack"), true)
	})
}

func TestEventThatCanNotBeReadIsPoisonedAtOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		contentType, data, reason string
	}{
		"garbage":            {"application/json", "\x00\x01", "decode order.placed (application/json): invalid character"},
		"empty":              {"", "", "unexpected end of JSON input"},
		"wrong shape":        {"", `{"n":"x"}`, "cannot unmarshal string"},
		"wrong content type": {"text/xml", "<n/>", "no codec for this content type"},
		"another format":     {"application/cloudevents+xml", "<event/>", "no codec for this content type"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, bus.Config{})
				var got notes[int]
				bus.Subscribe(s.Bus, "a", got.numbers(number))
				s.start()
				md := events.Metadata{ID: "1", Type: "order.placed", DataContentType: c.contentType}
				if err := s.PublishRaw(t.Context(), bus.Raw{Metadata: md, Data: []byte(c.data)}); err != nil {
					t.Fatal(err)
				}
				settle()
				check(t, "handled", len(got.get()), 0)
				p := s.poisoned("a")[0]
				if !strings.Contains(p.Reason, c.reason) {
					t.Errorf("reason is %q, want one with %q", p.Reason, c.reason)
				}
				check(t, "attempts", p.Attempts, 1)
				check(t, "payload", string(p.Message.Payload), c.data)
			})
		})
	}
}

func TestContentTypesOfJSONAreRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var got notes[int]
		bus.Subscribe(s.Bus, "a", got.numbers(number))
		s.start()
		types := []string{"", "application/json", "application/json; charset=utf-8", "Application/JSON", "text/json", "application/vnd.shop+json"}
		for i, contentType := range types {
			md := events.Metadata{Type: "order.placed", DataContentType: contentType}
			if err := s.PublishRaw(t.Context(), bus.Raw{Metadata: md, Data: fmt.Appendf(nil, `{"n":%d}`, i)}); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		check(t, "handled", len(got.get()), len(types))
	})
}

func TestInvalidEventIsPoisonedWithItsField(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", func(context.Context, strict) error { t.Error("handled"); return nil })
		s.start()
		if err := s.PublishRaw(t.Context(), bus.Raw{Metadata: events.Metadata{Type: "strict"}, Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		settle()
		p := s.poisoned("a")[0]
		check(t, "reason", p.Reason, "decode strict (): email is empty")
		check(t, "error type", p.ErrorType, "*events.ValidationError")
	})
}

// In a rolling deploy the new replica binds a type that the old one does not know.
func TestEventOfAnUnknownTypeIsPutOffForADayThenPoisoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error { return nil })
		s.start()
		newReplica(t, s, "order.paid") // binds the type and is gone

		s.publish(paid{})
		pass(23 * time.Hour)
		check(t, "poisoned", len(s.poisoned("a")), 0)
		check(t, "delayed", s.depth("a").Delayed, 1)
		pass(2 * time.Hour)
		p := s.poisoned("a")[0]
		check(t, "reason", p.Reason, `subscription shop.a has no handler for events of type "order.paid" in this process`)
		check(t, "attempts", p.Attempts, 0)
		outcomes := s.steps.outcomes("a")
		check(t, "first outcome", outcomes[0], "deferred")
		check(t, "last outcome", outcomes[len(outcomes)-1], "poisoned")
	})
}

func TestEventOfAnUnknownTypeIsHandledByTheReplicaThatKnowsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := newBroker(t, memory.Config{})
		before := newSetupOn(t, broker, bus.Config{})
		bus.Subscribe(before.Bus, "a", func(context.Context, placed) error { return nil })
		before.start()
		newReplica(t, before, "order.paid")
		before.publish(paid{N: 1}) // meets the old replica first
		settle()

		after := newSetupOn(t, broker, bus.Config{})
		var got notes[int]
		sub := after.Subscription("a")
		bus.On(sub, func(context.Context, placed) error { return nil })
		bus.On(sub, func(_ context.Context, e paid) error { got.add(e.N); return nil })
		after.start()
		pass(time.Hour)
		checkAll(t, "handled by the new one", got.get(), []int{1})
	})
}

// newReplica binds a topic to the subscription "a" and ends.
func newReplica(t *testing.T, s *setup, topic string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.transport.Subscribe(ctx, transports.Subscription{Name: "shop.a", Topics: []string{topic}, Concurrency: 1}); err != nil {
		t.Fatal(err)
	}
	cancel()
	settle()
}

func TestTimeoutEndsTheHandlersContextAndRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		calls := 0
		bus.Subscribe(s.Bus, "a", func(ctx context.Context, _ placed) error {
			if calls++; calls > 1 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}, bus.Timeout(time.Second), bus.Retry(exact(1, time.Minute)))
		s.start()
		s.publish(placed{})
		pass(time.Hour)
		check(t, "calls", calls, 2)
		checkAll(t, "outcomes", s.steps.outcomes("a"), []string{"redelivered", "handled"})
		if err := s.steps.all[0].Err; err == nil || !strings.Contains(err.Error(), "handler timed out after 1s") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestDuplicateIsHandledOncePerSubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var a, b, c notes[int]
		bus.Subscribe(s.Bus, "a", a.numbers(number))
		bus.Subscribe(s.Bus, "b", b.numbers(number))
		bus.Subscribe(s.Bus, "c", c.numbers(number), bus.WithoutDedup())
		s.start()
		for range 3 {
			if err := s.Publish(t.Context(), placed{N: 1}, bus.WithID("same")); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Minute)
		checkAll(t, "a", a.get(), []int{1})
		checkAll(t, "b", b.get(), []int{1})
		checkAll(t, "c, without dedup", c.get(), []int{1, 1, 1})
		counts := map[string]int{}
		for _, o := range s.steps.outcomes("a") {
			counts[o]++
		}
		check(t, "deduplicated", counts["deduplicated"], 2)
	})
}

// The copy may be the only one left if the first one's process dies.
func TestCopyThatMeetsALiveClaimIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, bus.Config{})
		var calls notes[int]
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error {
			calls.add(1)
			if len(calls.get()) == 1 {
				time.Sleep(10 * time.Second) // virtual: slow work, which fails in the end
				return bus.Permanent(errors.New("no"))
			}
			return nil
		})
		s.start()
		for range 2 {
			if err := s.Publish(t.Context(), placed{}, bus.WithID("same")); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Minute)
		check(t, "calls", len(calls.get()), 2)
		check(t, "poisoned", len(s.poisoned("a")), 1)
		outcomes := s.steps.outcomes("a")
		check(t, "last outcome", outcomes[len(outcomes)-1], "handled")
	})
}

func TestUsersMiddlewareSeesEachAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls notes[string]
		s := newSetup(t, bus.Config{Middleware: []message.HandlerMiddleware{tracing(&calls, "of the bus")}})
		bus.Subscribe(s.Bus, "a", func(context.Context, placed) error {
			calls.add("handler")
			return errors.New("no")
		}, bus.Retry(exact(2)), bus.Use(tracing(&calls, "outer"), tracing(&calls, "inner")))
		s.start()
		s.publish(placed{})
		pass(time.Second)
		checkAll(t, "calls", calls.get(), []string{
			"of the bus", "outer", "inner", "handler",
			"of the bus", "outer", "inner", "handler",
		})
	})
}

// It would come again at once, and again.
func TestEventIsHeldWhenTheMiddlewareItselfPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := connect(t, newBroker(t, memory.Config{}))
		var calls notes[bus.Outcome]
		b := newBus(t, transport, bus.Config{Source: "shop", OnDelivery: func(d bus.Delivery) {
			calls.add(d.Outcome)
			panic("counter is broken")
		}})
		bus.Subscribe(b, "a", func(context.Context, placed) error { return bus.Permanent(errors.New("no")) })
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), placed{}); err != nil {
			t.Fatal(err)
		}
		pass(14 * time.Second)
		check(t, "calls", len(calls.get()), 3)
		start := time.Now()
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, "time that the shutdown took", time.Since(start), 0)
	})
}

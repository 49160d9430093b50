package bustest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/bus/bustest"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/handlers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mailbox is a mailer that keeps what it is asked to send, by idempotency key as a
// mail service would.
type mailbox struct {
	mu    sync.Mutex
	calls int
	keys  []string
}

func (m *mailbox) SendWelcome(_ context.Context, key string, _ events.CustomerCreated) error {
	return m.send(key)
}

func (m *mailbox) SendVIPGreeting(_ context.Context, key string, _ events.CustomerPromotedToVIP) error {
	return m.send(key)
}

func (m *mailbox) send(key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if !slices.Contains(m.keys, key) {
		m.keys = append(m.keys, key)
	}
	return nil
}

func (m *mailbox) count() (calls, mails int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls, len(m.keys)
}

var ada = events.CustomerCreated{CustomerID: 42, CustomerName: "Ada", Email: "ada@example.com"}

// region welcome
func TestWelcomeMailIsSentOnceThroughACrash(t *testing.T) {
	t.Parallel()
	var mails mailbox
	b := bustest.New(t, bus.Config{}, bustest.DeliverTwice(), bustest.Crash("welcome", 1))
	bus.Subscribe(b.Bus, "welcome", handlers.WelcomeEmail(&mails))
	b.Start()
	b.Publish(ada)
	b.Idle()
	if _, sent := mails.count(); sent != 1 {
		t.Errorf("%d welcome mails, want 1", sent)
	}
}

// endregion

func TestCrashRepeatsTheEffectAndCountsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mails mailbox
		b := bustest.New(t, bus.Config{}, bustest.Crash("welcome", 1))
		bus.Subscribe(b.Bus, "welcome", handlers.WelcomeEmail(&mails), bus.Retry(bus.NoRetry()))
		b.Start()
		b.Publish(ada)
		b.Idle()
		if calls, sent := mails.count(); calls != 2 || sent != 1 {
			t.Errorf("%d calls and %d mails, want 2 and 1", calls, sent)
		}
		if got := b.Deliveries("welcome"); len(got) != 1 || got[0].Outcome != bus.Handled || got[0].Metadata.Attempt != 1 {
			t.Errorf("deliveries are %+v, want one that was handled at the first attempt", got)
		}
	})
}

func TestFailMeetsTheNthAttemptOfItsSubscriptionOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		b := bustest.New(t, bus.Config{Service: "svc"}, bustest.Fail("a", 2, boom), bustest.Fail("a", 3, bus.Permanent(boom)))
		ignore := func(context.Context, events.CustomerCreated) error { return nil }
		bus.Subscribe(b.Bus, "a", ignore, bus.Concurrency(1))
		bus.Subscribe(b.Bus, "b", ignore, bus.Concurrency(1))
		b.Start()
		b.Publish(ada, ada, ada)
		b.Idle()
		if got, want := b.Outcomes("a"), []bus.Outcome{bus.Handled, bus.Retried, bus.Poisoned, bus.Handled}; !slices.Equal(got, want) {
			t.Errorf("outcomes of a are %v, want %v", got, want)
		}
		if got, want := b.Outcomes("b"), []bus.Outcome{bus.Handled, bus.Handled, bus.Handled}; !slices.Equal(got, want) {
			t.Errorf("outcomes of b are %v, want %v", got, want)
		}
		if p := b.Poisoned("a"); len(p) != 1 || p[0].Reason != "boom" || p[0].Attempts != 2 {
			t.Errorf("poisoned: %+v", p)
		}
	})
}

func TestDelayHoldsTheNthAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bustest.New(t, bus.Config{}, bustest.Delay("a", 1, time.Hour), bustest.Delay("a", 2, time.Hour))
		calls := 0
		bus.Subscribe(b.Bus, "a", func(context.Context, events.CustomerCreated) error { calls++; return nil },
			bus.Concurrency(1), bus.Timeout(90*time.Minute))
		b.Start()
		start := time.Now()
		b.Publish(ada, ada)
		b.Idle()
		if took := time.Since(start); took != 2*time.Hour || calls != 2 {
			t.Errorf("%d calls in %v, want 2 in 2h", calls, took)
		}
	})
}

func TestDelayEndsWithTheHandlersContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bustest.New(t, bus.Config{}, bustest.Delay("a", 1, time.Hour))
		bus.Subscribe(b.Bus, "a", func(context.Context, events.CustomerCreated) error { return nil }, bus.Timeout(time.Minute))
		b.Start()
		b.Publish(ada)
		b.Idle()
		if got, want := b.Outcomes("a"), []bus.Outcome{bus.Retried, bus.Handled}; !slices.Equal(got, want) {
			t.Errorf("outcomes are %v, want %v", got, want)
		}
	})
}

func TestIdleWaitsForRetriesAndForWhatHandlersPublish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bustest.New(t, bus.Config{})
		promoted := 0
		bus.Subscribe(b.Bus, "promote", func(ctx context.Context, e events.CustomerCreated) error {
			if md, _ := events.MetadataFrom(ctx); md.Attempt < 10 {
				return errors.New("not yet")
			}
			return b.Bus.Publish(ctx, events.CustomerPromotedToVIP{CustomerID: e.CustomerID, CustomerName: e.CustomerName, PromotedAt: time.Now()})
		})
		bus.Subscribe(b.Bus, "greet", func(context.Context, events.CustomerPromotedToVIP) error { promoted++; return nil })
		b.Start()
		b.Publish(ada)
		b.Idle()
		if promoted != 1 {
			t.Errorf("%d promotions were handled, want 1", promoted)
		}
		if got := bustest.Published[events.CustomerPromotedToVIP](b); len(got) != 1 || got[0].CustomerID != 42 {
			t.Errorf("published promotions: %+v", got)
		}
		if got := b.Published(); len(got) != 2 || got[1].Metadata.CausationID != got[0].Metadata.ID {
			t.Errorf("published: %+v", got)
		}
	})
}

func TestDeliverTwiceMeetsHandlersWithoutDedup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bustest.New(t, bus.Config{}, bustest.DeliverTwice())
		var mails, again mailbox
		bus.Subscribe(b.Bus, "once", handlers.WelcomeEmail(&mails))
		bus.Subscribe(b.Bus, "twice", handlers.WelcomeEmail(&again), bus.WithoutDedup())
		b.Start()
		b.Publish(ada)
		b.Idle()
		if calls, _ := mails.count(); calls != 1 {
			t.Errorf("%d calls with deduplication, want 1", calls)
		}
		if calls, sent := again.count(); calls != 2 || sent != 1 {
			t.Errorf("%d calls and %d mails without deduplication, want 2 and 1", calls, sent)
		}
	})
}

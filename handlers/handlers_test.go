package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/handlers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service stands for all that a user implements. It honours keys as the
// interfaces ask: an effect that has succeeded is not repeated.
type service struct {
	mu      sync.Mutex // guards what follows
	keys    []string   // of every call, in order
	effects []any      // what was done: events, or reservations
	done    map[string]bool
	fail    func(effect any) error // asked before an effect; nil means no failure
}

var (
	_ handlers.Mailer    = (*service)(nil)
	_ handlers.Inventory = (*service)(nil)
	_ handlers.Notifier  = (*service)(nil)
	_ handlers.Analytics = (*service)(nil)
	_ handlers.Alerter   = (*service)(nil)
)

func (s *service) do(ctx context.Context, key string, effect any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys, key)
	if s.done[key] {
		return nil
	}
	if s.fail != nil {
		if err := s.fail(effect); err != nil {
			return err
		}
	}
	if s.done == nil {
		s.done = make(map[string]bool)
	}
	s.done[key] = true
	s.effects = append(s.effects, effect)
	return nil
}

func (s *service) SendWelcome(ctx context.Context, key string, e events.CustomerCreated) error {
	return s.do(ctx, key, e)
}

func (s *service) SendVIPGreeting(ctx context.Context, key string, e events.CustomerPromotedToVIP) error {
	return s.do(ctx, key, e)
}

func (s *service) Reserve(ctx context.Context, key string, r handlers.Reservation) error {
	return s.do(ctx, key, r)
}

func (s *service) NotifyProcessed(ctx context.Context, key string, e events.DocumentProcessed) error {
	return s.do(ctx, key, e)
}

func (s *service) RecordProcessed(ctx context.Context, key string, e events.DocumentProcessed) error {
	return s.do(ctx, key, e)
}

func (s *service) AlertFailed(ctx context.Context, key string, e events.DocumentFailed) error {
	return s.do(ctx, key, e)
}

var (
	created  = events.CustomerCreated{CustomerID: 42, CustomerName: "Ada", Email: "ada@example.com"}
	promoted = events.CustomerPromotedToVIP{CustomerID: 42, CustomerName: "Ada", PromotedAt: time.Unix(1, 0).UTC()}
	ordered  = events.OrderCreated{OrderID: 7, CustomerID: 42, Items: []events.OrderItem{
		{ProductID: 1, Quantity: 2}, {ProductID: 9, Quantity: 5}, {ProductID: 1, Quantity: 2},
	}}
	processed = events.DocumentProcessed{DocumentID: "d-1", UserID: "u-2", ProcessingResults: json.RawMessage(`{}`)}
	failed    = events.DocumentFailed{DocumentID: "d-1", Error: "unreadable"}
)

// all are the handlers, each with an event to deliver and the effects of it.
var all = []struct {
	name    string
	deliver func(context.Context, *service) error
	effects []any
	wrapped string   // the error when the service says "down"
	keys    []string // of the effects, for the event of TestKeysNeverChange
}{
	{
		name:    "WelcomeEmail",
		deliver: func(ctx context.Context, s *service) error { return handlers.WelcomeEmail(s)(ctx, created) },
		effects: []any{created},
		wrapped: "welcome customer 42: down",
		keys:    []string{"7fac33ca6fb4dffa3444b3a4786ebcf2cd5793e5d02c0eac3ebf1825e5351612"},
	},
	{
		name:    "VIPGreeting",
		deliver: func(ctx context.Context, s *service) error { return handlers.VIPGreeting(s)(ctx, promoted) },
		effects: []any{promoted},
		wrapped: "greet VIP customer 42: down",
		keys:    []string{"256c63c29ec4d6842bf33a5c8b012c2e3bd2c95351bb0d6632e388b9e1eb2ede"},
	},
	{
		name:    "InventoryReservation",
		deliver: func(ctx context.Context, s *service) error { return handlers.InventoryReservation(s)(ctx, ordered) },
		effects: []any{
			handlers.Reservation{OrderID: 7, ProductID: 1, Quantity: 2},
			handlers.Reservation{OrderID: 7, ProductID: 9, Quantity: 5},
			handlers.Reservation{OrderID: 7, ProductID: 1, Quantity: 2},
		},
		wrapped: "reserve items[0] of order 7, product 1: down",
		keys: []string{
			"62a87f86913eb2f0033a83bf69be773dfde348c927ee8410da91802fee511565",
			"6b53507465a7113d40c6a5fe4df7c32a5e9b6c9b1a0a99f3566d3e4fd1b4f63c",
			"e09ead4b940a1c6768f16353598e56c8942204b6d10e2740e0d80d5e2f64869b",
		},
	},
	{
		name:    "UserNotification",
		deliver: func(ctx context.Context, s *service) error { return handlers.UserNotification(s)(ctx, processed) },
		effects: []any{processed},
		wrapped: `notify user "u-2" of document "d-1": down`,
		keys:    []string{"595f5285bdc9d1f8f8413bce23345a9f1d78e34a31f3622aa7ac1ffa05f27a88"},
	},
	{
		name:    "DocumentAnalytics",
		deliver: func(ctx context.Context, s *service) error { return handlers.DocumentAnalytics(s)(ctx, processed) },
		effects: []any{processed},
		wrapped: `record document "d-1": down`,
		keys:    []string{"fd57517e917ffa4634dba8bee0193d12691b97e54e4b7880f2a474f5de554813"},
	},
	{
		name:    "FailureAlert",
		deliver: func(ctx context.Context, s *service) error { return handlers.FailureAlert(s)(ctx, failed) },
		effects: []any{failed},
		wrapped: `alert of document "d-1": down`,
		keys:    []string{"0ba5c4e95d8bedcf5cbb4328b0041c4153e26e0817b209cdd00a62d96daa1341"},
	},
}

// delivery returns the context of a handler.
func delivery(t *testing.T, md events.Metadata) context.Context {
	t.Helper()
	return events.WithMetadata(t.Context(), &md)
}

func TestSecondDeliveryHasNoSecondEffect(t *testing.T) {
	t.Parallel()
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := new(service)
			first := events.Metadata{ID: "1", Source: "shop", Subscription: "shop.one", Attempt: 1}
			again := events.Metadata{ID: "1", Source: "shop", Subscription: "shop.renamed", Attempt: 5}
			for _, md := range []events.Metadata{first, again} {
				if err := tt.deliver(delivery(t, md), s); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tt.effects, s.effects); diff != "" {
				t.Errorf("effects of two deliveries (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEachEventHasItsEffect(t *testing.T) {
	t.Parallel()
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := new(service)
			// The same id from another source is another event; so is one whose
			// source and id make the same text when written together.
			for _, md := range []events.Metadata{
				{ID: "1", Source: "shop"},
				{ID: "2", Source: "shop"},
				{ID: "1", Source: "shop2"},
				{ID: "21", Source: "shop"},
				{ID: "1"},
			} {
				if err := tt.deliver(delivery(t, md), s); err != nil {
					t.Fatal(err)
				}
			}
			if want := 5 * len(tt.effects); len(s.effects) != want {
				t.Errorf("%d effects of five events, want %d", len(s.effects), want)
			}
		})
	}
}

// One table of keys behind all collaborators must not make one effect swallow
// another.
func TestKeysDifferBetweenEffects(t *testing.T) {
	t.Parallel()
	s := new(service)
	want := 0
	for _, tt := range all {
		want += len(tt.effects)
		if err := tt.deliver(delivery(t, events.Metadata{ID: "1", Source: "shop"}), s); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.effects) != want {
		t.Errorf("%d effects, want %d", len(s.effects), want)
	}
}

// Users keep keys in their databases. If this fails, a redelivery across the
// upgrade has its effects twice: mend the code, not the test. The values are
// from sha256sum, of texts such as "13:welcome-email4:shop36:0198c0de-…".
func TestKeysNeverChange(t *testing.T) {
	t.Parallel()
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := new(service)
			md := events.Metadata{ID: "0198c0de-0000-7000-8000-000000000001", Source: "shop"}
			if err := tt.deliver(delivery(t, md), s); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.keys, s.keys); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

// Without an id nothing says that it is the same event: better a second effect
// than none.
func TestWithoutAnIDEveryCallHasItsEffect(t *testing.T) {
	t.Parallel()
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := new(service)
			for _, ctx := range []context.Context{
				t.Context(),
				t.Context(),
				delivery(t, events.Metadata{Source: "shop"}),
				delivery(t, events.Metadata{Source: "shop"}),
			} {
				if err := tt.deliver(ctx, s); err != nil {
					t.Fatal(err)
				}
			}
			if want := 4 * len(tt.effects); len(s.effects) != want {
				t.Errorf("%d effects of four calls, want %d", len(s.effects), want)
			}
			for _, key := range s.keys {
				if len(key) != 64 {
					t.Errorf("key = %q, want 64 characters", key)
				}
			}
		})
	}
}

func TestErrorIsTheVerdict(t *testing.T) {
	t.Parallel()
	errDown := errors.New("down")
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &service{fail: func(any) error { return errDown }}
			err := tt.deliver(delivery(t, events.Metadata{ID: "1", Source: "shop"}), s)
			if !errors.Is(err, errDown) || err.Error() != tt.wrapped {
				t.Errorf("error = %v, want %s", err, tt.wrapped)
			}
			s.fail = nil
			if err := tt.deliver(delivery(t, events.Metadata{ID: "1", Source: "shop", Attempt: 2}), s); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.effects, s.effects); diff != "" {
				t.Errorf("effects after the retry (-want +got):\n%s", diff)
			}
		})
	}
}

func TestContextReachesTheService(t *testing.T) {
	t.Parallel()
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(delivery(t, events.Metadata{ID: "1", Source: "shop"}))
			cancel()
			s := new(service)
			if err := tt.deliver(ctx, s); !errors.Is(err, context.Canceled) || len(s.effects) != 0 {
				t.Errorf("error = %v after %d effects, want context.Canceled and none", err, len(s.effects))
			}
		})
	}
}

func TestNilServicePanics(t *testing.T) {
	t.Parallel()
	for want, construct := range map[string]func(){
		"handlers: WelcomeEmail: nil Mailer":            func() { handlers.WelcomeEmail(nil) },
		"handlers: VIPGreeting: nil Mailer":             func() { handlers.VIPGreeting(nil) },
		"handlers: InventoryReservation: nil Inventory": func() { handlers.InventoryReservation(nil) },
		"handlers: UserNotification: nil Notifier":      func() { handlers.UserNotification(nil) },
		"handlers: DocumentAnalytics: nil Analytics":    func() { handlers.DocumentAnalytics(nil) },
		"handlers: FailureAlert: nil Alerter":           func() { handlers.FailureAlert(nil) },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if got := recover(); got != want {
					t.Errorf("panic = %v, want %s", got, want)
				}
			}()
			construct()
		})
	}
}

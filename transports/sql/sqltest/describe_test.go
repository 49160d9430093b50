package sqltest

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
)

func TestSubscriptionsAreListed(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			if list, err := tr.Subscriptions(t.Context()); err != nil || list == nil || len(list) != 0 {
				t.Errorf("without any: %v, %v", list, err)
			}
			for _, s := range []transports.Subscription{
				{Name: "b", Topics: []string{"y.*", "x"}, Concurrency: 1},
				{Name: "a", Topics: []string{"#"}, Concurrency: 1, Ephemeral: true},
			} {
				if _, err := tr.Subscribe(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			list, err := tr.Subscriptions(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := []transports.SubscriptionInfo{{Name: "a", Topics: []string{"#"}, Ephemeral: true}, {Name: "b", Topics: []string{"x", "y.*"}}}
			if diff := cmp.Diff(want, list); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// An event that was put back is pending while it waits and while it is being handled, and
// no more when it is handled or poisoned.
func TestPending(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			in := subscribe(t.Context(), t, tr, "s", 1, "x")
			subscribe(t.Context(), t, tr, "other", 1, "y")
			key := func(id string) transports.EventKey { return transports.EventKey{Source: "test", ID: id} }
			pending := func() (ids []string) {
				keys, err := tr.Pending(t.Context(), "s", key("delayed"), key("poisoned"), key("back"), key("nothing"), transports.EventKey{Source: "else", ID: "back"})
				if err != nil {
					t.Fatal(err)
				}
				for _, k := range keys {
					ids = append(ids, k.ID)
				}
				return ids
			}
			want := func(when string, ids ...string) {
				t.Helper()
				if got := pending(); !slices.Equal(got, ids) {
					t.Errorf("%s: %q are pending, want %q", when, got, ids)
				}
			}
			if err := tr.Requeue(t.Context(), "s", newMessage("delayed"), time.Hour); err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"poisoned", "back"} {
				if err := tr.Poison(t.Context(), "s", newMessage(id)); err != nil {
					t.Fatal(err)
				}
			}
			want("before", "delayed")
			for p, err := range tr.Poisoned(t.Context(), "s", transports.PoisonPage{}) {
				if err == nil && p.Message.UUID == "back" {
					_, err = tr.RequeuePoisoned(t.Context(), "s", p.Handle)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			want("put back", "delayed", "back")
			msg := receive(t, in)
			want("in flight", "delayed", "back")
			msg.Ack()
			for end := time.Now().Add(deadline); len(pending()) != 1; <-time.After(10 * time.Millisecond) { // settled in batches
				if time.Now().After(end) {
					t.Fatalf("handled, and %q are pending", pending())
				}
			}
			want("handled", "delayed")
			if _, err := tr.Pending(t.Context(), "unknown", key("back")); err == nil {
				t.Error("of an unknown subscription: no error")
			}
		})
	}
}

package sqltest

import (
	"strconv"
	"testing"

	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Whoever looks waits for nobody, and nobody waits for them: not for the row of a subscription
// either, which a claim holds.
func TestDepthWaitsForNoLock(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			if err := tr.DeclareSubscription(t.Context(), transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 1}, tsql.FromNow); err != nil {
				t.Fatal(err)
			}
			publish(t, tr, "a", "1", "2")
			claim := begin(t, b.DB)
			execute(t, claim, "update "+b.table("subscriptions")+" set position = position")
			defer func() { _ = claim.Rollback() }()
			d, err := tr.Depth(t.Context(), "s")
			if want := (transports.Depth{Ready: 2}); err != nil || d != want {
				t.Errorf("%+v, %v; want %+v", d, err, want)
			}
		})
	}
}

// Of very many messages it is counted that there are at least 100,000.
func TestDepthStopsCounting(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			for _, s := range []transports.Subscription{{Name: "exact", Topics: []string{"a"}, Concurrency: 1}, {Name: "words", Topics: []string{"*"}, Concurrency: 1}} {
				if err := tr.DeclareSubscription(t.Context(), s, tsql.FromNow); err != nil {
					t.Fatal(err)
				}
			}
			publish(t, tr, "a", numbers(1, 1000)...)
			for range 3 {
				if err := tr.Poison(t.Context(), "exact", newMessage("1")); err != nil {
					t.Fatal(err)
				}
			}
			for range 7 {
				const columns = "topic, event_id, source, partition_key, metadata, payload, published_ms"
				execute(t, b, "insert into "+b.table("messages")+" ("+columns+") select "+columns+" from "+b.table("messages"))
			}
			if n := scalar(t, b.DB, "select count(*) from "+b.table("messages")); n != 128_000 {
				t.Fatal(n)
			}
			want := transports.Depth{Ready: 100_000, AtLeast: transports.DepthAtLeast{Ready: true}}
			for s, poisoned := range map[string]int{"exact": 3, "words": 0} {
				want.Poisoned = poisoned
				if d, err := tr.Depth(t.Context(), s); err != nil || d != want {
					t.Errorf("%s: %+v, %v; want %+v", s, d, err, want)
				}
			}
			execute(t, b, "update "+b.table("subscriptions")+" set position = (select max(id) from "+b.table("messages")+") - 10")
			for s, poisoned := range map[string]int{"exact": 3, "words": 0} {
				want := transports.Depth{Ready: 10, Poisoned: poisoned}
				if d, err := tr.Depth(t.Context(), s); err != nil || d != want {
					t.Errorf("%s: %+v, %v; want %+v", s, d, err, want)
				}
			}
		})
	}
}

// What a binding takes begins where it was added, which the counts of a subscription with
// wildcards heed.
func TestDepthCountsFromABindingOn(t *testing.T) {
	t.Parallel()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			tr := testsql.NewTransport(t, b.DB, b.cfg)
			for i, topic := range []string{"a.*", "b.*", "c.*"} {
				if err := tr.DeclareSubscription(t.Context(), transports.Subscription{Name: "s", Topics: []string{topic}, Concurrency: 1}, tsql.FromNow); err != nil {
					t.Fatal(err)
				}
				for _, word := range []string{"a", "b", "c"} {
					publish(t, tr, word+".x", strconv.Itoa(i))
				}
			}
			d, err := tr.Depth(t.Context(), "s")
			if want := (transports.Depth{Ready: 3 + 2 + 1}); err != nil || d != want {
				t.Errorf("%+v, %v; want %+v", d, err, want)
			}
		})
	}
}

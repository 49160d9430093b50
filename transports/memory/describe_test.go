package memory

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/transports"
)

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	tr, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close() //nolint:errcheck // it returns nil
	if list, err := tr.Subscriptions(t.Context()); err != nil || list == nil || len(list) != 0 {
		t.Errorf("without any: %v, %v", list, err)
	}
	for _, s := range []transports.Subscription{
		{Name: "b", Topics: []string{"x", "y.*"}, Concurrency: 1},
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
}

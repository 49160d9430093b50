package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	existing := []transports.SubscriptionInfo{
		{Name: "billing.old", Topics: []string{"a"}},
		{Name: "shop.classic", Topics: []string{"a"}, Arguments: map[string]any{"x-queue-type": "classic", "x-expires": 1.0}},
		{Name: "shop.live.123", Topics: []string{"#"}, Ephemeral: true},
		{Name: "shop.more", Topics: []string{"a", "c"}, Arguments: map[string]any{"x-delivery-limit": 20.0}},
		{Name: "shop.old", Topics: []string{"b"}},
		{Name: "shop.right", Topics: []string{"a"}},
		{Name: "shopping.right", Topics: []string{"a"}},
	}
	desired := []bus.Topology{{Service: "shop", Subscriptions: []bus.SubscriptionTopology{
		{Name: "shop.new", Topics: []string{"a", "b"}},
		{Name: "shop.right", Topics: []string{"a"}, Arguments: map[string]any{"x": 1}},
		{Name: "shop.more", Topics: []string{"a", "b"}, Arguments: map[string]any{"x-delivery-limit": 20}},
		{Name: "shop.classic", Topics: []string{"a"}, Arguments: map[string]any{"x-queue-type": "quorum"}},
		{Name: "shop.live", Topics: []string{"#"}, Ephemeral: true},
	}}}
	want := []change{
		{create, "shop.new", "a b"},
		{none, "shop.right", ""},
		{bind, "shop.more", "b"},
		{stale, "shop.more", "c"},
		{conflict, "shop.classic", `x-expires is 1, wanted not set; x-queue-type is "classic", wanted "quorum"`},
		{orphan, "shop.old", "b"},
	}
	if diff := cmp.Diff(want, compare(existing, desired)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

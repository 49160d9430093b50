package bus_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// describing is a transport with arguments of its subscriptions.
type describing struct{ transports.Transport }

func (describing) SubscriptionArguments(s transports.Subscription) map[string]any {
	return map[string]any{"ordered": s.Ordered}
}

func TestTopology(t *testing.T) {
	t.Parallel()
	mem, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close() //nolint:errcheck // nothing is in it
	b, err := bus.New(describing{mem}, bus.Config{Source: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(context.Context, bus.Raw) error { return nil }
	bus.SubscribeRaw(b, "audit", []string{"order.#", "customer.*"}, nothing, bus.Ordered(), bus.Concurrency(3))
	bus.SubscribeRaw(b, "live", []string{"#"}, nothing, bus.Ephemeral())
	got, err := json.MarshalIndent(b.Topology(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
 "service": "shop",
 "subscriptions": [
  {
   "name": "shop.audit",
   "topics": [
    "customer.*",
    "order.#"
   ],
   "ordered": true,
   "ephemeral": false,
   "concurrency": 3,
   "arguments": {
    "ordered": true
   }
  },
  {
   "name": "shop.live",
   "topics": [
    "#"
   ],
   "ordered": false,
   "ephemeral": true,
   "concurrency": 16,
   "arguments": {
    "ordered": false
   }
  }
 ]
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

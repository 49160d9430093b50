//go:build !race

package main

import (
	"testing"

	"github.com/gotidings/tidings/internal/testserver"
)

// What an event may allocate on its whole way, publisher, bus and handler together: two or
// three in a hundred over what was measured when the bound was set, which varies by less
// than two. A change that makes an event cheaper lowers its bound.
//
// The race detector allocates too, so scripts/test.sh runs this once more without it.
func TestAllocationsPerEvent(t *testing.T) {
	// Not parallel: what is counted is what the process allocates.
	broker := testserver.RabbitMQ(t)
	t.Setenv("POSTGRES_URL", testserver.Postgres(t))
	cases := make(map[string]benchCase)
	for _, c := range allCases(broker) {
		cases[c.name()] = c
	}
	for name, most := range map[string]float64{
		"memory/publishers=1/tidings":                  32,
		"rabbitmq-publish/callers=1/batch=100/tidings": 100.5,
		"rabbitmq-consume/handler=instant/tidings":     143,
		"postgres/work=drain/tidings":                  36,
		"outbox/work=drain/tidings":                    134,
	} {
		t.Run(name, func(t *testing.T) {
			c, ok := cases[name]
			if !ok {
				t.Fatal("there is no such case")
			}
			s, err := measureWarm(t.Context(), c, c.events(50_000), "")
			if err != nil {
				t.Fatal(err)
			}
			if got := s.allocs(); got > most {
				t.Errorf("%.1f allocations an event; at most %.1f are allowed: go run ./bench -once %s -profile DIRECTORY shows where they are", got, most, name)
			} else {
				t.Logf("%.1f allocations an event, %.1f allowed", got, most)
			}
		})
	}
}

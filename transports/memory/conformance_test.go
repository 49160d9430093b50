package memory

import (
	"flag"
	"testing"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/transporttest"
)

var update = flag.Bool("update", false, "write this transport's section of docs/guarantees.md")

func TestConformance(t *testing.T) {
	t.Parallel()
	const maxMessageBytes = 1 << 20
	b := newBroker(t, Config{MaxMessageBytes: maxMessageBytes})
	results := transporttest.Run(t,
		transporttest.Harness{
			Open: func(*testing.T) transports.Transport { return b.Connect() },
			OpenBounded: func(t *testing.T, size int) transports.Transport {
				t.Helper()
				tr, err := New(Config{QueueSize: size})
				if err != nil {
					t.Fatal(err)
				}
				return tr
			},
		},
		transporttest.Features{
			MaxMessageBytes: maxMessageBytes,
			Lacks: map[transporttest.Feature]string{
				transporttest.Reconnect: "the broker is in the process, so there is no connection to lose",
			},
		})
	results.CheckGuarantees(t, "../../docs/guarantees.md", "memory", *update)
}

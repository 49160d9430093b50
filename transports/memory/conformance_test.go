package memory

import (
	"context"
	"flag"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/transporttest"
)

var update = flag.Bool("update", false, "write this transport's section of docs/guarantees.md")

func TestConformance(t *testing.T) {
	t.Parallel()
	results := conformance(t, func(tr *Transport) transports.Transport { return tr })
	results.CheckGuarantees(t, "../../docs/guarantees.md", "memory", *update)
}

// notified is a transport that is told of what its receivers settle.
type notified struct{ *Transport }

func (n notified) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	return transporttest.Notifying(ctx, n.Transport, s)
}

func TestConformanceOfSubscribeNotified(t *testing.T) {
	t.Parallel()
	conformance(t, func(tr *Transport) transports.Transport { return notified{tr} })
}

func conformance(t *testing.T, as func(*Transport) transports.Transport) transporttest.Results {
	t.Helper()
	const maxMessageBytes = 1 << 20
	b := newBroker(t, Config{MaxMessageBytes: maxMessageBytes})
	return transporttest.Run(t,
		transporttest.Harness{
			Open: func(*testing.T) transports.Transport { return as(b.Connect()) },
			OpenBounded: func(t *testing.T, size int) transports.Transport {
				t.Helper()
				tr, err := New(Config{QueueSize: size})
				if err != nil {
					t.Fatal(err)
				}
				return as(tr)
			},
		},
		transporttest.Features{
			MaxMessageBytes: maxMessageBytes,
			Lacks: map[transporttest.Feature]string{
				transporttest.Reconnect: "the broker is in the process, so there is no connection to lose",
			},
		})
}

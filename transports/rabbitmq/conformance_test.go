package rabbitmq

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/transporttest"
)

var update = flag.Bool("update", false, "write this transport's section of docs/guarantees.md")

func TestConformance(t *testing.T) {
	t.Parallel()
	results := conformance(t, func(tr *Transport) transports.Transport { return tr })
	results.CheckGuarantees(t, "../../docs/guarantees.md", "rabbitmq", *update)
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
	cfg := Config{URLs: testserver.RabbitMQNodes(t), Exchange: newExchange(t), MaxMessageBytes: maxMessageBytes, ConnectTimeout: time.Minute}
	return transporttest.Run(t,
		transporttest.Harness{
			Open: func(t *testing.T) transports.Transport { t.Helper(); return as(mustOpen(t, cfg)) },
			OpenCuttable: func(t *testing.T) (tr transports.Transport, cut, restore func()) {
				t.Helper()
				var n testserver.Network
				cfg := cfg
				cfg.Dial = n.Dial
				return as(mustOpen(t, cfg)), n.Cut, n.Restore
			},
		},
		transporttest.Features{
			MaxMessageBytes: maxMessageBytes,
			Lacks: map[transporttest.Feature]string{
				transporttest.BackPressure:  "queues are bounded by the broker's memory and disk only; when those run short, it holds publishers back",
				transporttest.LargeMetadata: "all of a message's metadata travels in one frame, of 128 KiB by default",
				transporttest.DepthDetail:   "the protocol does not tell what is in flight, and a delay tier holds messages of all subscriptions",
			},
		})
}

// newExchange returns the name of an exchange that the test's end deletes with all that
// belongs to it.
func newExchange(t *testing.T) string {
	t.Helper()
	name := "test-" + uuid.NewString()[:13]
	t.Cleanup(func() { removeTopology(t, namesOf(name)) })
	return name
}

func mustOpen(t *testing.T, cfg Config) *Transport {
	t.Helper()
	tr, err := Open(context.WithoutCancel(t.Context()), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

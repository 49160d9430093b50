package watermill

import (
	"context"
	"flag"
	"maps"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
	"github.com/gotidings/tidings/transports/transporttest"
)

var update = flag.Bool("update", false, "write this transport's sections of docs/guarantees.md")

const maxMessageBytes = 1 << 20

// The reasons that hold for every Pub/Sub.
var lacks = map[transporttest.Feature]string{
	transporttest.AddedTopics:    "a Watermill subscriber can't be asked for the topics that a group had",
	transporttest.BatchPublish:   "a Watermill publisher takes one topic at a time; the bus publishes run by run",
	transporttest.DelayedPublish: "Watermill has no delays",
	transporttest.Requeue:        "Watermill has no delays, and no way to one group only; the bus waits in place",
	transporttest.PoisonQueue:    "Watermill has none; the bus publishes to the topic `poison.<subscription>`",
	transporttest.Removal:        "Watermill can't delete what a subscriber has made",
	transporttest.Ping:           "Watermill can't be asked",
	transporttest.Depth:          "Watermill can't be asked",
	transporttest.DepthDetail:    "Watermill can't be asked",
}

func lacking(more map[transporttest.Feature]string) map[transporttest.Feature]string {
	all := maps.Clone(lacks)
	maps.Copy(all, more)
	return all
}

// GoChannel as Watermill's users have it in tests. Its other two modes can't be run by
// the suite: a persistent one gives new subscribers old messages, and a blocking one
// makes Publish wait until the message is acknowledged.
func TestConformanceOnGoChannel(t *testing.T) {
	t.Parallel()
	pubSub := newGoChannel(t, gochannel.Config{OutputChannelBuffer: 100})
	open := func(t *testing.T) transports.Transport {
		t.Helper()
		return newTransport(t, pubSub, pubSub, Config{
			Sharing: FanOut, Ephemeral: true, MaxMessageBytes: maxMessageBytes, LeaveOpen: true,
		})
	}
	const noGroups = "GoChannel has no consumer groups"
	results := transporttest.Run(t, transporttest.Harness{Open: open}, transporttest.Features{
		MaxMessageBytes: maxMessageBytes,
		Lacks: lacking(map[transporttest.Feature]string{
			transporttest.Durable:      "a message is gone when nobody is subscribed",
			transporttest.Groups:       noGroups,
			transporttest.Ephemeral:    "in part: they are ephemeral, but two transports can have the same name",
			transporttest.Patterns:     "GoChannel's topics are exact names",
			transporttest.Order:        "GoChannel gives each message to a goroutine of its own",
			transporttest.NackOrder:    "the same",
			transporttest.Ordered:      noGroups,
			transporttest.BackPressure: "GoChannel holds any number of messages",
			transporttest.Reconnect:    "GoChannel is in the process, so there is no connection to lose",
		}),
	})
	checkGuarantees(t, results, "watermill, GoChannel")
}

// A Pub/Sub that has everything which Watermill's interfaces can express: the memory
// broker, behind them. It shows that the adapter loses nothing of it.
func TestConformanceOnConsumerGroups(t *testing.T) {
	t.Parallel()
	broker, err := memory.NewBroker(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	results := transporttest.Run(t,
		transporttest.Harness{
			Open: func(t *testing.T) transports.Transport {
				t.Helper()
				return groupTransport(t, broker)
			},
			OpenBounded: func(t *testing.T, size int) transports.Transport {
				t.Helper()
				broker, err := memory.NewBroker(memory.Config{QueueSize: size})
				if err != nil {
					t.Fatal(err)
				}
				return groupTransport(t, broker)
			},
		},
		transporttest.Features{
			MaxMessageBytes: maxMessageBytes,
			Lacks: lacking(map[transporttest.Feature]string{
				transporttest.Reconnect: "the broker of this test is in the process, so there is no connection to lose",
			}),
		})
	checkGuarantees(t, results, "watermill, a Pub/Sub with consumer groups")
}

var guaranteesMu sync.Mutex // one section is written at a time

func checkGuarantees(t *testing.T, results transporttest.Results, section string) {
	t.Helper()
	guaranteesMu.Lock()
	defer guaranteesMu.Unlock()
	results.CheckGuarantees(t, "../../docs/guarantees.md", section, *update)
}

// groupTransport connects to a broker as a process of its own would.
func groupTransport(t *testing.T, broker *memory.Broker) *Transport {
	t.Helper()
	tr := broker.Connect()
	return newTransport(t, tr, nil, Config{
		Subscriber: func(s transports.Subscription) (message.Subscriber, error) {
			if s.Ephemeral {
				return &ephemeralSubscriber{transport: tr, s: s, ended: make(chan struct{})}, nil
			}
			return transports.AsSubscriber(tr, transports.SubscriberConfig{
				Group: s.Name, Concurrency: s.Concurrency, Ordered: s.Ordered, Ephemeral: s.Ephemeral,
			})
		},
		Patterns: true, Ordered: true, Ephemeral: true, MaxMessageBytes: maxMessageBytes,
	})
}

// ephemeralSubscriber is a subscriber without a group, of one subscription. Those of
// transports.AsSubscriber make their names unique, and the suite wants to see a name
// refused that is taken.
type ephemeralSubscriber struct {
	transport transports.Transport
	s         transports.Subscription
	ended     chan struct{}
}

func (e *ephemeralSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		<-e.ended
	}()
	return e.transport.Subscribe(ctx, transports.Subscription{
		Name: e.s.Name + "." + topic, Topics: []string{topic}, Concurrency: e.s.Concurrency, Ephemeral: true,
	})
}

func (e *ephemeralSubscriber) Close() error {
	close(e.ended)
	return nil
}

func newGoChannel(t *testing.T, cfg gochannel.Config) *gochannel.GoChannel {
	t.Helper()
	pubSub := gochannel.NewGoChannel(cfg, nil)
	t.Cleanup(func() {
		if err := pubSub.Close(); err != nil {
			t.Error(err)
		}
	})
	return pubSub
}

func newTransport(t *testing.T, p message.Publisher, s message.Subscriber, cfg Config) *Transport {
	t.Helper()
	tr, err := New(p, s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

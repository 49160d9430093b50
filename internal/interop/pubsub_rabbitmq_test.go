package interop_test

import (
	"context"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/google/uuid"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/rabbitmq"
)

// Watermill's suite on RabbitMQ, with the features that watermill-amqp's own test of it
// has and some more.
func TestWatermillSuiteOnRabbitMQ(t *testing.T) {
	t.Parallel()
	features := tests.Features{
		ConsumerGroups:                      true,
		Persistent:                          true,
		GuaranteedOrder:                     true,
		GuaranteedOrderWithSingleSubscriber: true,
		ForceShort:                          true, // the large numbers are those of internal/faults

		ExactlyOnceDelivery:              false, // at least once: what a dead consumer held comes again
		NewSubscriberReceivesOldMessages: false, // a subscription begins when it is made; there is no log to read again
		RequireSingleInstance:            false, // any number of connections to a broker
		ContextPreserved:                 false, // the context of Publish does not travel, only what is in the metadata
		RestartServiceCommand:            nil,   // the broker that tests find is not theirs to restart; internal/faults has its own
	}
	cfg := rabbitmq.Config{URLs: []string{testserver.RabbitMQ(t)}} // its topics are unique
	own := "suite-" + uuid.NewString()[:13]
	made := &subscriptions{names: make(map[string]bool)}
	t.Cleanup(func() { made.remove(t, cfg) })
	connect := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		t.Helper()
		tr, err := rabbitmq.Open(context.WithoutCancel(t.Context()), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return bridged(t, noted{tr, made}, transports.SubscriberConfig{Group: group})
	}
	tests.TestPubSub(t, features,
		func(t *testing.T) (message.Publisher, message.Subscriber) {
			t.Helper()
			return connect(t, own)
		},
		connect,
	)
}

// subscriptions are the names of those that the suite has made.
type subscriptions struct {
	mu    sync.Mutex // guards names
	names map[string]bool
}

// noted is a transport whose subscriptions are noted.
type noted struct {
	transports.Transport
	made *subscriptions
}

func (n noted) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	n.made.mu.Lock()
	n.made.names[s.Name] = true
	n.made.mu.Unlock()
	return n.Transport.Subscribe(ctx, s)
}

// remove leaves the broker as it was, but for what all services share.
func (s *subscriptions) remove(t *testing.T, cfg rabbitmq.Config) {
	t.Helper()
	ctx := context.Background()
	tr, err := rabbitmq.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for name := range s.names {
		if err := tr.RemoveSubscription(ctx, name); err != nil {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}

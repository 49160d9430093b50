package interop_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
	"github.com/gotidings/tidings/transports/watermill"
)

// Watermill's suite on a GoChannel that went through the adapter and back: it must be
// the GoChannel that it was, with the features that Watermill's own test of it has. It is
// a persistent one, since the suite publishes first and subscribes afterwards.
func TestWatermillSuiteOnGoChannel(t *testing.T) {
	t.Parallel()
	features := tests.Features{
		ExactlyOnceDelivery:   true,
		RequireSingleInstance: true, // the channels are in the instance

		ConsumerGroups:                      false, // each Subscribe gets every message
		Persistent:                          false, // for other instances
		GuaranteedOrder:                     false, // each message has a goroutine of its own
		GuaranteedOrderWithSingleSubscriber: false,
		NewSubscriberReceivesOldMessages:    false, // those of its instance; the suite makes a new one
		ContextPreserved:                    false, // the adapter's messages have a context of their own
		RestartServiceCommand:               nil,
	}
	connect := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		t.Helper()
		pubSub := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 10_000, Persistent: true}, nil)
		tr, err := watermill.New(pubSub, pubSub, watermill.Config{Sharing: watermill.FanOut, Ephemeral: true})
		if err != nil {
			t.Fatal(err)
		}
		return bridged(t, tr, transports.SubscriberConfig{Group: group, Ephemeral: true})
	}
	tests.TestPubSub(t, features,
		func(t *testing.T) (message.Publisher, message.Subscriber) {
			t.Helper()
			return connect(t, "suite")
		},
		connect,
	)
}

// The same on subscribers with consumer groups: the memory broker behind Watermill's
// interfaces, behind the adapter, behind Watermill's interfaces.
func TestWatermillSuiteOnConsumerGroups(t *testing.T) {
	t.Parallel()
	broker, err := memory.NewBroker(memory.Config{QueueSize: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	features := tests.Features{
		ConsumerGroups:                      true,
		Persistent:                          true,
		GuaranteedOrder:                     true,
		GuaranteedOrderWithSingleSubscriber: true,
		ForceShort:                          true, // the large numbers are on the memory transport itself

		// The reasons are those of the memory transport.
		ExactlyOnceDelivery:              false,
		NewSubscriberReceivesOldMessages: false,
		RequireSingleInstance:            false,
		ContextPreserved:                 false,
		RestartServiceCommand:            nil,
	}
	connect := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		t.Helper()
		inner := broker.Connect()
		tr, err := watermill.New(inner, nil, watermill.Config{
			Subscriber: func(s transports.Subscription) (message.Subscriber, error) {
				return transports.AsSubscriber(inner, transports.SubscriberConfig{Group: s.Name, Concurrency: s.Concurrency})
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return bridged(t, tr, transports.SubscriberConfig{Group: group})
	}
	tests.TestPubSub(t, features,
		func(t *testing.T) (message.Publisher, message.Subscriber) {
			t.Helper()
			return connect(t, "suite")
		},
		connect,
	)
}

// bridged puts a transport behind Watermill's interfaces, until the test ends.
func bridged(t *testing.T, tr transports.Transport, cfg transports.SubscriberConfig) (message.Publisher, message.Subscriber) {
	t.Helper()
	t.Cleanup(func() { // the suite closes publishers and subscribers, not all of them
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	subscriber, err := transports.AsSubscriber(tr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return transports.AsPublisher(tr), subscriber
}

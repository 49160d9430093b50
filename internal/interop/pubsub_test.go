package interop_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

// Watermill's own suite, on the memory transport behind transports.AsSubscriber.
//
// Its full numbers, of up to 10,000 messages, take some seconds; -short takes the
// smaller ones.
func TestWatermillSuite(t *testing.T) {
	t.Parallel()
	features := tests.Features{
		ConsumerGroups: true,
		Persistent:     true, // for other instances; that is all that Watermill means by it

		// Consumers of one group share its messages, so there is order within one only.
		GuaranteedOrder:                     true,
		GuaranteedOrderWithSingleSubscriber: true,

		ExactlyOnceDelivery:              false, // at least once: what a dead consumer held comes again
		NewSubscriberReceivesOldMessages: false, // a subscription begins when it is made; there is no log to read again
		RequireSingleInstance:            false, // any number of connections to a broker
		ContextPreserved:                 false, // the context of Publish does not travel, only what is in the metadata
		RestartServiceCommand:            nil,   // so TestReconnect is skipped: the broker is in the process
	}
	runSuite(t, features, transports.SubscriberConfig{})
}

// The same with ordered subscriptions, which keep the order with any number of
// consumers, since one of them is active.
func TestWatermillSuiteOrdered(t *testing.T) {
	t.Parallel()
	features := tests.Features{
		ConsumerGroups:  true,
		Persistent:      true,
		GuaranteedOrder: true,
		ForceShort:      true, // the large numbers are above

		// The reasons are those above.
		GuaranteedOrderWithSingleSubscriber: false, // with any number
		ExactlyOnceDelivery:                 false,
		NewSubscriberReceivesOldMessages:    false,
		RequireSingleInstance:               false,
		ContextPreserved:                    false,
		RestartServiceCommand:               nil,
	}
	runSuite(t, features, transports.SubscriberConfig{Ordered: true})
}

func runSuite(t *testing.T, features tests.Features, cfg transports.SubscriberConfig) {
	t.Helper()
	// The suite publishes everything before it receives anything.
	broker, err := memory.NewBroker(memory.Config{QueueSize: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	connect := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		t.Helper()
		tr := broker.Connect()
		t.Cleanup(func() { // the suite closes publishers and subscribers, not all of them
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		})
		cfg := cfg
		cfg.Group = group
		subscriber, err := transports.AsSubscriber(tr, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return transports.AsPublisher(tr), subscriber
	}
	tests.TestPubSub(t, features,
		func(t *testing.T) (message.Publisher, message.Subscriber) {
			t.Helper()
			return connect(t, "suite")
		},
		connect,
	)
}

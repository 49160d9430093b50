package sqltest

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Watermill's suite on each database. What it makes goes with the test's schema, tables or
// file.
func TestWatermillSuite(t *testing.T) {
	t.Parallel()
	features := tests.Features{
		ConsumerGroups:                      true,
		Persistent:                          true,
		GuaranteedOrder:                     true,
		GuaranteedOrderWithSingleSubscriber: true,
		ForceShort:                          true, // the large numbers are those of the benchmarks

		ExactlyOnceDelivery:              false, // at least once: what a dead consumer held comes again
		NewSubscriberReceivesOldMessages: false, // a new subscription begins now; DeclareSubscription makes others
		RequireSingleInstance:            false, // any number of transports on a database
		ContextPreserved:                 false, // the context of Publish does not travel, only what is in the metadata
		RestartServiceCommand:            nil,   // the server that tests find is not theirs to restart; a proxy cuts connections instead
	}
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			connect := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
				t.Helper()
				tr, err := tsql.New(context.WithoutCancel(t.Context()), b.DB, b.cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { // the suite closes publishers and subscribers, not all of them
					if err := tr.Close(); err != nil {
						t.Error(err)
					}
				})
				subscriber, err := transports.AsSubscriber(tr, transports.SubscriberConfig{Group: group})
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
		})
	}
}

package middleware_test

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

func TestCorrelationGivesTheHandlerTheMetadataOfTheEvent(t *testing.T) {
	t.Parallel()
	when := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		metadata message.Metadata
		want     events.Metadata
	}{
		"of an event": {
			message.Metadata{
				"ce_source": "shop", "ce_type": "order.created", "ce_correlationid": "c", "ce_causationid": "a",
				"ce_time": when.Format(time.RFC3339), "ce_tenant": "acme", transports.HeaderAttempts: "2",
			},
			events.Metadata{
				ID: "event-1", Source: "shop", Type: "order.created", Time: when, CorrelationID: "c", CausationID: "a",
				Extensions: map[string]string{"tenant": "acme"}, Subscription: subscription, Attempt: 3,
			},
		},
		"of a message without a type": {
			message.Metadata{transports.HeaderTopic: "orders"},
			events.Metadata{ID: "event-1", Type: "orders", Subscription: subscription, Attempt: 1},
		},
		"of a message with nonsense": {
			message.Metadata{"ce_time": "noon", transports.HeaderAttempts: "-3"},
			events.Metadata{ID: "event-1", Subscription: subscription, Attempt: 1},
		},
		"of a message without any": {nil, events.Metadata{ID: "event-1", Subscription: subscription, Attempt: 1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			msg := newMessage(t.Context())
			msg.Metadata = tt.metadata
			out, err := middleware.Correlation(subscription)(func(msg *message.Message) ([]*message.Message, error) {
				got, ok := events.MetadataFrom(msg.Context())
				if diff := cmp.Diff(tt.want, got); !ok || diff != "" {
					t.Errorf("metadata (-want +got):\n%s", diff)
				}
				return []*message.Message{msg}, errBoom
			})(msg)
			if len(out) != 1 || err == nil {
				t.Error("the handler's results are not passed on")
			}
			if _, ok := events.MetadataFrom(msg.Context()); ok {
				t.Error("the metadata outlives the handler")
			}
		})
	}
}

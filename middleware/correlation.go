package middleware

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// Correlation gives handlers the event's metadata, [events.MetadataFrom], and so
// makes correlation work: what the bus publishes with a handler's context gets
// the handled event's correlation id, and its id as the causation id. An event
// that came without a type is given the topic's name as its type.
func Correlation(subscription string) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			md := events.DecodeMetadata(msg.UUID, msg.Metadata)
			if md.Type == "" {
				md.Type = transports.Topic(msg)
			}
			md.Subscription = subscription
			md.Attempt = transports.Attempts(msg) + 1

			ctx := msg.Context()
			defer msg.SetContext(ctx)
			msg.SetContext(events.WithMetadata(ctx, md))
			return h(msg)
		}
	}
}

package bus

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// intake is what a transport delivers to a subscription.
type intake struct {
	messages <-chan *message.Message
	settled  func(*message.Message) // tells the transport that a message is acked or nacked
}

// takeIn subscribes, and spares the transport to watch each message if it can do without.
func (b *Bus) takeIn(ctx context.Context, s transports.Subscription) (in intake, err error) {
	if t, ok := b.transport.(transports.NotifiedSubscriber); ok {
		in.messages, in.settled, err = t.SubscribeNotified(ctx, s)
		return in, err
	}
	in.settled = func(*message.Message) {}
	in.messages, err = b.transport.Subscribe(ctx, s)
	return in, err
}

// giveBack returns a message that does not come to its handler.
func (in intake) giveBack(msg *message.Message) {
	msg.Nack()
	in.settled(msg)
}

// settle acks a message, or nacks it, as the router does a moment later without effect:
// that the transport is told of it has to come behind.
func (in intake) settle(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (out []*message.Message, err error) {
		handled := false
		defer func() { // also when the goroutine ends
			if handled {
				msg.Ack()
			} else {
				msg.Nack()
			}
			in.settled(msg)
		}()
		out, err = h(msg)
		handled = err == nil && len(out) == 0 // with messages to publish the router fails
		return out, err
	}
}

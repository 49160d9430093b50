package transporttest

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Notifying makes a Subscribe of a transport's SubscribeNotified: a receiver of a channel,
// as the suite is, and the goroutines that tell the transport what it has settled. With a
// type that embeds the transport and has it as its Subscribe, the suite runs against
// SubscribeNotified.
func Notifying(ctx context.Context, tr transports.NotifiedSubscriber, s transports.Subscription) (<-chan *message.Message, error) {
	in, settled, err := tr.SubscribeNotified(ctx, s)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	go func() { // ends with the subscription
		defer close(out)
		for msg := range in {
			delivery := msg.Context()
			go func() {
				select {
				case <-msg.Acked():
				case <-msg.Nacked():
				case <-delivery.Done():
					return
				}
				settled(msg)
				settled(msg) // twice is once
			}()
			select {
			case out <- msg:
			case <-ctx.Done():
				msg.Nack()
			}
		}
	}()
	return out, nil
}

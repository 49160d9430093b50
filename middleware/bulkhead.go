package middleware

import (
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/bulkhead"
)

// Bulkhead lets as many messages be handled at a time as the bulkhead has
// permits; the others wait for one. Put inside [Retry], as the bus does, it is
// free while a failed message waits for its next try.
func Bulkhead(b bulkhead.Bulkhead[any]) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			if !b.TryAcquirePermit() { // which is cheaper than to be ready to wait
				if err := b.AcquirePermit(msg.Context()); err != nil {
					return nil, interruption(err)
				}
			}
			defer b.ReleasePermit()
			return h(msg)
		}
	}
}

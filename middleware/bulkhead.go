package middleware

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/bulkhead"
)

// Bulkhead lets as many messages be handled at a time as the bulkhead has
// permits; the others wait for one, until the message's context or its [HoldLimit]
// ends. Put inside [Retry], as the bus does, it is free while a failed message waits
// for its next try.
func Bulkhead(b bulkhead.Bulkhead[any]) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			if !b.TryAcquirePermit() { // which is cheaper than to be ready to wait
				if err := acquire(msg.Context(), b); err != nil {
					return nil, interruption(err)
				}
			}
			defer b.ReleasePermit()
			return h(msg)
		}
	}
}

func acquire(ctx context.Context, b bulkhead.Bulkhead[any]) error {
	until, limited := holdLimit(ctx)
	if !limited {
		return b.AcquirePermit(ctx)
	}
	return b.AcquirePermitWithMaxWait(ctx, max(time.Until(until), 0))
}

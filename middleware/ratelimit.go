package middleware

import (
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
)

// RateLimit makes messages wait for a permit of the limiter before each try; it
// refuses none and counts nothing. The wait ends with the message's context, with its
// [HoldLimit], and when stopping is closed: the message goes back then, uncounted.
//
// It goes inside [Bulkhead]: all who wait for a slot wait for the rate too, and a permit
// is then used when it is taken, so that slow handlers that end together don't let those
// behind them start together. A limiter can be shared with other subscriptions and with
// clients; its max wait time does not matter here.
func RateLimit(limiter ratelimiter.RateLimiter[any], stopping <-chan struct{}) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			if !limiter.TryAcquirePermit() {
				if err := awaitPermit(limiter, msg, stopping); err != nil {
					return nil, err
				}
			}
			return h(msg)
		}
	}
}

func awaitPermit(limiter ratelimiter.RateLimiter[any], msg *message.Message, stopping <-chan struct{}) error {
	ctx := msg.Context()
	until, limited := holdLimit(ctx)
	if !limited {
		return waited(pause(msg, limiter.ReservePermit(), stopping))
	}
	left := max(time.Until(until), 0)
	if delay := limiter.TryReservePermit(left); delay >= 0 {
		return waited(pause(msg, delay, stopping))
	}
	// There is none in time, and none is reserved. It is held all the same, since it
	// would come straight back.
	return waited(pause(msg, left, stopping) && false)
}

// waited makes an error of an interrupted wait.
func waited(whole bool) error {
	if !whole {
		return ErrInterrupted
	}
	return nil
}

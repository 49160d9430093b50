package middleware

import (
	"context"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// errHeldTooLong is an interruption by the end of a [HoldLimit].
var errHeldTooLong = fmt.Errorf("%w: held for too long", ErrInterrupted)

// HoldLimitKey is the key under which the context of a message has the time.Time
// until which the message may be held, as [HoldLimit] sets it. It is exported for
// those who make contexts of their own.
type HoldLimitKey struct{}

// HoldLimit bounds how long a message is held unsettled, counted from here: by a
// [Gate], an open circuit, a rate limit, a wait for its next try in place, or a
// poison queue that can't be written. What is held for longer goes back with
// [ErrInterrupted], uncounted, and comes again. Brokers take back what is not settled
// in time, RabbitMQ by closing the channel after 30 minutes, so half of that is a good
// limit. A handler that runs is not interrupted. It goes outside everything that
// holds.
func HoldLimit(d time.Duration) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			ctx := msg.Context()
			defer msg.SetContext(ctx)
			msg.SetContext(context.WithValue(ctx, HoldLimitKey{}, time.Now().Add(d)))
			return h(msg)
		}
	}
}

// holdLimit returns until when the message of a context may be held.
func holdLimit(ctx context.Context) (until time.Time, limited bool) {
	until, limited = ctx.Value(HoldLimitKey{}).(time.Time)
	return until, limited
}

// held waits for ready. It returns an [ErrInterrupted] when the message is to go back
// before.
func held(ctx context.Context, ready, stopping <-chan struct{}) error {
	return heldAtMost(ctx, ready, stopping, nil)
}

// heldAtMost is held that returns nil at poll, too.
func heldAtMost(ctx context.Context, ready, stopping <-chan struct{}, poll <-chan time.Time) error {
	var expired <-chan time.Time
	if until, limited := holdLimit(ctx); limited {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-ready:
		return nil
	case <-poll:
		return nil
	case <-expired:
		return errHeldTooLong
	case <-stopping:
		return ErrInterrupted
	case <-ctx.Done():
		return ErrInterrupted
	}
}

// pause waits for d and reports false when the delivery was interrupted before, or
// may not be held for so long.
func pause(msg *message.Message, d time.Duration, stopping <-chan struct{}) bool {
	ctx := msg.Context()
	whole := true
	if until, limited := holdLimit(ctx); limited {
		if left := time.Until(until); left < d {
			d, whole = left, false
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return whole
	case <-stopping:
		return false
	case <-ctx.Done():
		return false
	}
}

// writeGrace is how long a write may go on after the context of its delivery has
// ended: less than the bus waits for handlers then.
const writeGrace = 3 * time.Second

// finishing returns a context for a write that matters more than the delivery's own
// context, whose end it outlives by writeGrace: a write under way is finished, and
// one that hangs does not hold up the shutdown. It ends after limit in any case.
func finishing(delivery context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(delivery), limit)
	unhook := context.AfterFunc(delivery, func() {
		timer := time.NewTimer(writeGrace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		unhook()
		cancel()
	}
}

package middleware

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

const (
	persistTimeout  = 30 * time.Second // for one write; a broker that takes longer is as good as down
	persistMinDelay = 100 * time.Millisecond
	persistMaxDelay = 30 * time.Second
	persistGoneWait = time.Second // where the name is merely wrong, the message comes straight back
)

// persist writes a message to where it is to wait, a poison queue or a delay,
// until that succeeds: the message may only be acknowledged afterwards. Between
// tries it backs off. It gives up with an interruption when stopping is closed,
// when the delivery's context or its [HoldLimit] ends, when the subscription is
// gone, or, unless it is to insist, when a write hangs.
//
// The writes' own context is not that of the delivery: a write under way when
// the shutdown begins is finished, unless it hangs.
func persist(msg *message.Message, stopping <-chan struct{}, insist bool, onError func(error), write func(context.Context) error) error {
	delay := persistMinDelay
	for {
		ctx, cancel := finishing(msg.Context(), persistTimeout)
		err := write(ctx)
		hung := errors.Is(ctx.Err(), context.DeadlineExceeded)
		cancel()
		if err == nil {
			return nil
		}
		if onError != nil {
			onError(err)
		}
		if errors.Is(err, transports.ErrNoSubscription) {
			pause(msg, persistGoneWait, stopping)
			return interruption(err)
		}
		if hung && !insist || !pause(msg, delay, stopping) {
			return interruption(err)
		}
		delay = min(2*delay, persistMaxDelay)
	}
}

package bus

import (
	"context"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// deliveryContext is the context of a handler: it ends with the bus's patience,
// not with the transport's subscription, and has the values of both, so that the
// transport recognises its own deliveries. It embeds the bus's context, and asks
// it for values first, because the context package then finds the cancellation
// there without a goroutine for each child.
type deliveryContext struct {
	context.Context                 //nolint:containedctx // it is a context: that of the handlers
	message         context.Context //nolint:containedctx // and this is the one that it has further values from
	until           time.Time       // how long the event may be held
}

func (c *deliveryContext) Value(key any) any {
	if key == (middleware.HoldLimitKey{}) {
		return c.until
	}
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.message.Value(key)
}

// enter gives messages the handlers' context, and the event in them its place.
func enter(runCtx context.Context) message.HandlerMiddleware {
	var back returned
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			ctx := &deliveryContext{Context: runCtx, message: msg.Context()}
			if turn, ordered := ctx.message.Value(laneKey{}).(*laneTurn); ordered {
				ctx.until = turn.until // it may have waited for its turn
			} else {
				ctx.until = time.Now().Add(inPlaceLimit)
			}
			msg.SetContext(ctx)
			_ = unwrap(msg) // refuseMalformed has the error again
			back.restore(msg)
			out, err := h(msg)
			if err != nil {
				back.keep(msg)
			}
			return out, err
		}
	}
}

// poisonTopic is the fallback for transports without poison queues.
type poisonTopic struct{ transport transports.Transport }

func (p poisonTopic) Poison(ctx context.Context, subscription string, msg *message.Message) error {
	msg.SetContext(ctx)
	return p.transport.Publish("poison."+subscription, msg)
}

// trouble logs what goes wrong around a subscription's handlers.
func (s *Subscription) trouble(what string, err error) {
	if s.bus.lines.Allow(slog.LevelError, s.fullName, what, err) {
		s.bus.log.LogAttrs(context.Background(), slog.LevelError, what, slog.String("subscription", s.fullName), slog.Any("error", err)) //nolint:sloglint // few texts
	}
}

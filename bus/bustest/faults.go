package bustest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// Fault is something that goes wrong in a test, on purpose.
type Fault interface{ plan(p *plan) }

type faultFunc func(*plan)

func (f faultFunc) plan(p *plan) { f(p) }

// plan is all that is to go wrong with a bus.
type plan struct {
	twice   bool
	instead map[attempt]handling // of the handler

	mu   sync.Mutex     // guards seen
	seen map[string]int // attempts so far, by subscription
}

type attempt struct {
	subscription string
	n            int
}

type handling func(message.HandlerFunc, *message.Message) ([]*message.Message, error)

// middleware counts the attempts of each subscription and does something else where
// that is planned. service begins the subscriptions' full names.
func (p *plan) middleware(service string) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			md, _ := events.MetadataFrom(msg.Context())
			subscription := strings.TrimPrefix(md.Subscription, service+".")
			p.mu.Lock()
			p.seen[subscription]++
			instead, planned := p.instead[attempt{subscription, p.seen[subscription]}]
			p.mu.Unlock()
			if planned {
				return instead(h, msg)
			}
			return h(msg)
		}
	}
}

func onAttempt(subscription string, n int, instead handling) Fault {
	return faultFunc(func(p *plan) { p.instead[attempt{subscription, n}] = instead })
}

// Fail makes the nth attempt of a subscription return err, without calling the
// handler. n counts from 1.
func Fail(subscription string, n int, err error) Fault {
	return onAttempt(subscription, n, func(message.HandlerFunc, *message.Message) ([]*message.Message, error) {
		return nil, err
	})
}

// Delay makes the nth attempt of a subscription begin after d, or fail when its
// context ends before.
func Delay(subscription string, n int, d time.Duration) Fault {
	return onAttempt(subscription, n, func(h message.HandlerFunc, msg *message.Message) ([]*message.Message, error) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return h(msg)
		case <-msg.Context().Done():
			return nil, context.Cause(msg.Context())
		}
	})
}

// Crash makes the process die, as far as the event can tell, after the handler's nth
// attempt and before its acknowledgement: whatever the handler did is done, nothing
// is remembered of it, and the event is delivered again. A handler with effects that
// must not happen twice has to pass this.
func Crash(subscription string, n int) Fault {
	return onAttempt(subscription, n, func(h message.HandlerFunc, msg *message.Message) ([]*message.Message, error) {
		_, err := h(msg)
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("bustest: crash after the effect: %w", middleware.ErrInterrupted)
	})
}

// DeliverTwice publishes a second copy of every event, with the same id, as happens
// when a publisher has to try again: deduplication keeps it from the handlers, except
// with [bus.WithoutDedup].
func DeliverTwice() Fault { return faultFunc(func(p *plan) { p.twice = true }) }

// publishTwice is publish middleware.
func publishTwice(next bus.PublishFunc) bus.PublishFunc {
	return func(ctx context.Context, batch []transports.Outgoing) error {
		again := make([]transports.Outgoing, len(batch))
		for i, out := range batch { // before it is given away
			again[i] = transports.Outgoing{Topic: out.Topic, Delay: out.Delay, Message: out.Message.Copy()}
		}
		if err := next(ctx, batch); err != nil {
			return err
		}
		return next(ctx, again)
	}
}

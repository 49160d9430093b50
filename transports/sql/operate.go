package sql

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Requeue stores a copy of msg as an exception of one subscription, which is delivered
// after delay.
func (t *Transport) Requeue(ctx context.Context, subscription string, msg *message.Message, delay time.Duration) error {
	err := t.do(ctx, func(ctx context.Context) error {
		return t.store.exception(ctx, subscription, msg, stateWaiting, millis(delay))
	})
	t.Wake()
	return err
}

// RemoveSubscription deletes a subscription and all that waits in it. Consumers in other
// processes notice within a second.
func (t *Transport) RemoveSubscription(ctx context.Context, name string) error {
	err := t.do(ctx, func(ctx context.Context) error { return t.store.remove(ctx, name) })
	if err == nil {
		t.eachConsumer(func(c *consumer) {
			if c.group.name == name {
				c.stopIntake()
			}
		})
	}
	return err
}

// Ping asks the database for the state of the log. The error wraps [ErrUnseen] when what is
// published is not delivered.
func (t *Transport) Ping(ctx context.Context) error {
	return t.do(ctx, func(ctx context.Context) error {
		if _, _, err := t.store.passedIDs(ctx); err != nil {
			return err
		}
		return t.checkIDs(ctx)
	})
}

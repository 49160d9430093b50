package rabbitmq

import (
	"time"

	"github.com/gotidings/tidings/transports"
)

// SubscriptionArguments returns the arguments that the queue of a durable subscription is
// declared with, nil for an ephemeral one.
func (t *Transport) SubscriptionArguments(s transports.Subscription) map[string]any {
	if s.Ephemeral {
		return nil
	}
	return t.subscriptionArgs(s)
}

// LongestDelay returns 30 days.
func (t *Transport) LongestDelay() time.Duration { return maxDelay }

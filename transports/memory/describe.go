package memory

import (
	"context"
	"slices"
	"strings"

	"github.com/gotidings/tidings/transports"
)

// Subscriptions lists the subscriptions of the broker by name.
func (t *Transport) Subscriptions(ctx context.Context) ([]transports.SubscriptionInfo, error) {
	if err := t.usable(ctx); err != nil {
		return nil, err
	}
	t.broker.mu.Lock()
	defer t.broker.mu.Unlock()
	list := make([]transports.SubscriptionInfo, 0, len(t.broker.queues))
	for name, q := range t.broker.queues {
		list = append(list, transports.SubscriptionInfo{Name: name, Topics: slices.Clone(q.topics), Ephemeral: q.ephemeral})
	}
	slices.SortFunc(list, func(a, b transports.SubscriptionInfo) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

package bus

import (
	"slices"

	"github.com/gotidings/tidings/transports"
)

// Topology describes the subscriptions of a bus, for programs that compare it with what
// exists at the broker, such as tidings topology --desired FILE: write it as JSON, with the
// service's other build results for example.
type Topology struct {
	Service       string                 `json:"service"`
	Subscriptions []SubscriptionTopology `json:"subscriptions"` // in the order of their registration
}

// SubscriptionTopology describes a subscription.
type SubscriptionTopology struct {
	Name        string         `json:"name"` // at the broker; of an ephemeral one, what its replicas' names begin with
	Topics      []string       `json:"topics"`
	Ordered     bool           `json:"ordered"`
	Ephemeral   bool           `json:"ephemeral"`
	Concurrency int            `json:"concurrency"`
	Arguments   map[string]any `json:"arguments,omitempty"` // what can't be changed once it exists, see [transports.ArgumentDescriber]
}

// Topology returns what Start declares. It asks no broker, and may be called before Start;
// faults of configuration are reported by Start.
func (b *Bus) Topology() Topology {
	b.mu.Lock()
	defer b.mu.Unlock()
	describer, describes := b.transport.(transports.ArgumentDescriber)
	t := Topology{Service: b.cfg.Service, Subscriptions: []SubscriptionTopology{}}
	for _, s := range b.subs {
		d := SubscriptionTopology{
			Name: b.cfg.Service + "." + s.name, Topics: append([]string{}, s.patterns...),
			Ordered: s.settings.ordered, Ephemeral: s.settings.ephemeral, Concurrency: s.settings.concurrency,
		}
		slices.Sort(d.Topics)
		if describes {
			d.Arguments = describer.SubscriptionArguments(transports.Subscription{
				Name: s.fullName, Topics: s.patterns, Concurrency: max(s.settings.concurrency, 1), Ordered: s.settings.ordered, Ephemeral: s.settings.ephemeral,
			})
		}
		t.Subscriptions = append(t.Subscriptions, d)
	}
	return t
}

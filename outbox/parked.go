package outbox

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// SubscriptionOf returns the name of the subscription on the log of the relay of that name,
// see [Relay.Subscription].
func SubscriptionOf(relay string) string { return subscriptionPrefix + relay }

// Parked lists the events that the destination has refused, oldest first.
func (r *Relay) Parked(ctx context.Context) iter.Seq2[transports.Poisoned, error] {
	return r.ob.log.Poisoned(ctx, r.Subscription(), transports.PoisonPage{})
}

// Redrive has the parked events of these handles sent again, and returns how many there
// were. They have lost their place in the order.
func (r *Relay) Redrive(ctx context.Context, handles ...transports.PoisonHandle) (int, error) {
	n, err := r.ob.log.RequeuePoisoned(ctx, r.Subscription(), handles...)
	r.ob.Wake()
	return n, err
}

// Discard deletes the parked events of these handles, and returns how many there were.
func (r *Relay) Discard(ctx context.Context, handles ...transports.PoisonHandle) (int, error) {
	return r.ob.log.DiscardPoisoned(ctx, r.Subscription(), handles...)
}

// Stats is what waits for a destination.
type Stats struct {
	Name    string        // of the destination's relay
	Waiting int           // events that are committed and not sent
	Age     time.Duration // of the oldest of them, by the database's clock; 0 when none waits
	Parked  int           // events that the destination has refused
}

// Stats counts what waits for each destination that is known, whether or not its relay
// runs, in the order of their names. It reads the index of what waits; ask every few
// seconds, not more often.
func (ob *Outbox) Stats(ctx context.Context) ([]Stats, error) { return StatsOf(ctx, ob.log) }

// StatsOf is [Outbox.Stats] for a program that has no outbox of its own and looks at that
// of a service, by its log.
func StatsOf(ctx context.Context, log *tsql.Transport) ([]Stats, error) {
	backlogs, err := log.Backlogs(ctx, subscriptionPrefix)
	if err != nil {
		return nil, err
	}
	stats := make([]Stats, len(backlogs))
	for i, b := range backlogs {
		d := b.Depth
		stats[i] = Stats{
			Name: strings.TrimPrefix(b.Subscription, subscriptionPrefix), Waiting: d.Ready + d.InFlight + d.Delayed, Age: b.Age, Parked: d.Poisoned,
		}
	}
	return stats, nil
}

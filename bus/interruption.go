package bus

import (
	"sync"
	"time"

	"github.com/gotidings/tidings/transports"
)

// interruptionGrace is how long a subscription may be without a consumer before the bus is
// not ready: a broker's node that restarts should not take a service out of its load
// balancer.
const interruptionGrace = 5 * time.Second

// interruption is what a subscription knows of its consumer at the broker.
type interruption struct {
	mu      sync.Mutex // guards what follows
	cause   error      // nil: it receives
	since   time.Time
	missing bool // what the user's OnInterruption was told last
}

// interrupted notes what the transport says, and calls the user's OnInterruption when
// events are missing.
func (s *Subscription) interrupted(now transports.Interruption) {
	i := &s.interruption
	i.mu.Lock()
	if i.cause == nil {
		i.since = time.Now()
	}
	i.cause = now.Cause
	missing := now.Cause != nil && (now.Missing || i.missing)
	tell := missing != i.missing && s.settings.interruption != nil
	i.missing = missing
	i.mu.Unlock()
	if tell {
		s.settings.interruption(missing)
	}
}

// fault returns an [*InterruptedError] once the interruption has lasted for too long.
func (i *interruption) fault(subscription string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cause == nil {
		return nil
	}
	if d := time.Since(i.since); d >= interruptionGrace {
		return &InterruptedError{Subscription: subscription, For: d, Err: i.cause}
	}
	return nil
}

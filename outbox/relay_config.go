package outbox

import (
	"errors"
	"fmt"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// RelayConfig configures a [Relay]. Name and To are required; the rest has defaults.
type RelayConfig struct {
	// Name is the durable identity of the destination, such as "rabbitmq": what it has
	// been sent is known under this name. Relays of one name stand by for each other.
	Name string

	// To is the destination. It remains the caller's, who closes it after Run.
	To transports.Transport

	// Topics are patterns of the types of events to send, see [transports.Match]. None
	// means all.
	Topics []string

	// Start says where in the log a destination begins that is not known yet. The zero
	// value, [FromBeginning], sends what was committed before the first relay ran.
	Start Start

	// Batch is the most events that are sent at once, of which the next ones of the same
	// partition keys wait for the confirms. 0 means 256.
	Batch int

	// Lanes is how many batches are on their way at a time. A partition key has one lane.
	// 0 means 8.
	Lanes int

	// Attempts is how often an event is sent that the destination refuses, before it is
	// parked. What fails because the destination can't be reached is not counted. 0 means 8.
	Attempts int

	// MinDelay and MaxDelay bound the time between attempts, which doubles. The lane of
	// the event waits so long. 0 means 50 ms and 5 s.
	MinDelay, MaxDelay time.Duration

	// Lease is how long after its death a relay is followed by one that stands by. 0 means
	// 5 s; at least 1 s.
	Lease time.Duration

	// PublishMiddleware wraps the sending of each batch, as [bus.Config.PublishMiddleware]
	// wraps that of the bus: the first one outermost. It sees the events of a batch again
	// when they are sent again.
	PublishMiddleware []bus.PublishMiddleware

	// SettleTimeout is how long a relay that is to stop waits for confirms. 0 means 10 s.
	SettleTimeout time.Duration
}

// Start says where in the log a new destination begins.
type Start int

// Where a destination can begin.
const (
	FromBeginning Start = iota // with the oldest event that there is
	FromNow                    // with what is committed after the relay has started
)

// at is the start in the words of the log.
func (s Start) at() tsql.Start {
	if s == FromNow {
		return tsql.FromNow
	}
	return tsql.FromBeginning
}

func (c RelayConfig) withDefaults() RelayConfig {
	if len(c.Topics) == 0 {
		c.Topics = []string{"#"}
	}
	if c.Batch == 0 {
		c.Batch = 256
	}
	if c.Lanes == 0 {
		c.Lanes = 8
	}
	if c.Attempts == 0 {
		c.Attempts = 8
	}
	if c.MinDelay == 0 {
		c.MinDelay = 50 * time.Millisecond
	}
	if c.MaxDelay == 0 {
		c.MaxDelay = max(5*time.Second, c.MinDelay)
	}
	if c.Lease == 0 {
		c.Lease = 5 * time.Second
	}
	if c.SettleTimeout == 0 {
		c.SettleTimeout = 10 * time.Second
	}
	return c
}

func (c RelayConfig) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Name == "" {
		fault("Name is empty; name the destination, such as %q", "rabbitmq")
	}
	if c.To == nil {
		fault("To is nil")
	}
	if c.Start != FromBeginning && c.Start != FromNow {
		fault("Start is %d; it takes FromBeginning or FromNow", c.Start)
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"Batch", c.Batch}, {"Lanes", c.Lanes}, {"Attempts", c.Attempts}} {
		if n.value < 0 {
			fault("%s is %d; it takes at least 1, or 0 for the default", n.name, n.value)
		}
	}
	for i, m := range c.PublishMiddleware {
		if m == nil {
			fault("PublishMiddleware[%d] is nil", i)
		}
	}
	if c.MinDelay < 0 || c.MaxDelay < 0 || c.MaxDelay != 0 && c.MaxDelay < c.MinDelay {
		fault("MinDelay is %s and MaxDelay is %s; the first must not be negative or more than the second", c.MinDelay, c.MaxDelay)
	}
	if c.Lease != 0 && c.Lease < time.Second {
		fault("Lease is %s; it takes at least 1s, or 0 for the default", c.Lease)
	}
	if c.SettleTimeout < 0 {
		fault("SettleTimeout is %s; it must not be negative", c.SettleTimeout)
	}
	if c.Name != "" {
		sub := transports.Subscription{Name: subscriptionPrefix + c.Name, Topics: c.withDefaults().Topics, Concurrency: 1}
		if err := sub.Validate(); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

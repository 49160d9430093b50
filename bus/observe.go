package bus

import (
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// Outcome is what happened to a delivery.
type Outcome int

// The outcomes of a delivery. Retried, Redelivered and Deferred are followed by
// further ones of the same event; the others are the last.
const (
	Handled      Outcome = iota + 1 // the handler returned nil
	Retried                         // an attempt failed; the next one follows in place
	Redelivered                     // it failed and comes back after Delay
	Deferred                        // it could not be tried and comes back after Delay, uncounted
	Deduplicated                    // it had been handled before
	Discarded                       // the handler said Discard
	Poisoned                        // it failed for good and is in the poison queue
)

func (o Outcome) String() string {
	names := [...]string{"", "handled", "retried", "redelivered", "deferred", "deduplicated", "discarded", "poisoned"}
	if o < Handled || int(o) >= len(names) {
		return "unknown"
	}
	return names[o]
}

// Delivery is a step in the life of an event in one subscription.
type Delivery struct {
	Subscription string          // its name in this bus, without the service
	Metadata     events.Metadata // of the event; Attempt is the last one made
	Outcome      Outcome
	Err          error         // why, unless it was handled or a duplicate
	Delay        time.Duration // of Redelivered and Deferred
}

// observe tells OnDelivery and the instrumentations; the log is middleware.Logging's.
func (s *Subscription) observe(msg *message.Message, outcome Outcome, err error, delay time.Duration) {
	b := s.bus
	if b.cfg.OnDelivery == nil && len(s.steps) == 0 {
		return
	}
	md, ok := events.MetadataFrom(msg.Context())
	if !ok {
		md = *events.DecodeMetadata(msg.UUID, msg.Metadata)
	}
	md.Attempt = transports.Attempts(msg) // the failed ones so far
	if outcome == Handled {
		md.Attempt++
	}
	d := Delivery{Subscription: s.name, Metadata: md, Outcome: outcome, Err: err, Delay: delay}
	for _, step := range s.steps {
		step(msg.Context(), d)
	}
	if b.cfg.OnDelivery != nil {
		b.cfg.OnDelivery(d)
	}
}

package transporttest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gotidings/tidings/transports"
)

// Harness is how the suite reaches a broker. Its functions are called by many
// tests at a time; they end the test that t is of when they fail.
type Harness struct {
	// Open makes a new connection to the broker, the same in every call, as a
	// process of its own would. The suite closes it. It must be set.
	Open func(t *testing.T) transports.Transport

	// OpenBounded opens a transport whose subscriptions hold no more than size
	// messages, ready and in flight together, before publishers wait. It may be a
	// broker of its own. nil: [BackPressure] is lacking.
	OpenBounded func(t *testing.T, size int) transports.Transport

	// OpenCuttable is Open for a transport whose connections can be taken away and
	// given back, those of the other transports remaining. cut returns when they
	// are gone; while they are, the broker refuses new ones. Both may be called at
	// any time, in turn. nil: [Reconnect] is lacking.
	OpenCuttable func(t *testing.T) (tr transports.Transport, cut, restore func())

	// Prefix begins every name that the suite makes: subscriptions and topics. It is
	// part of a topic's first word, so it has no dot. "" means "conformance-".
	Prefix string

	// Patience is how long to wait for what must happen. 0 means a minute: a busy machine is slow.
	Patience time.Duration

	// Quiet is how long to listen where nothing may happen. Longer finds more, and
	// takes longer. 0 means 100 ms.
	Quiet time.Duration
}

func (h Harness) withDefaults() Harness {
	if h.Prefix == "" {
		h.Prefix = "conformance-"
	}
	if h.Patience == 0 {
		h.Patience = time.Minute
	}
	if h.Quiet == 0 {
		h.Quiet = 100 * time.Millisecond
	}
	return h
}

// Feature is something that a transport may lack.
type Feature string

// What a transport may lack. All the rest of the seam's contract it must have.
const (
	// Capabilities that are interfaces of package transports.
	BatchPublish Feature = "batch publish"        // transports.BatchPublisher
	Requeue      Feature = "delayed requeue"      // transports.Requeuer
	PoisonQueue  Feature = "poison queue"         // transports.PoisonQueue
	Removal      Feature = "subscription removal" // transports.SubscriptionRemover
	Ping         Feature = "ping"                 // transports.Pinger
	Depth        Feature = "depth"                // transports.DepthReporter

	DepthDetail    Feature = "depth of what is delayed or in flight" // else Depth.Delayed and InFlight are UnknownDepth
	DelayedPublish Feature = "delayed publish"                       // Outgoing.Delay; without it the error is ErrUnsupported
	Patterns       Feature = "topic patterns"                        // * and # in Subscription.Topics
	Groups         Feature = "competing consumers"                   // consumers of one name share its messages
	Durable        Feature = "durable subscriptions"                 // messages wait while nobody consumes
	AddedTopics    Feature = "added topics"                          // a durable subscription keeps the topics that it had
	Ephemeral      Feature = "ephemeral subscriptions"
	Order          Feature = "order"                  // one consumer of concurrency 1 sees the order of publishing
	NackOrder      Feature = "order after nack"       // what is nacked or given back returns to its old place
	NackPassing    Feature = "passing after nacks"    // a message that is nacked each time lets others pass
	Ordered        Feature = "ordered subscriptions"  // one active consumer at a time
	BackPressure   Feature = "back-pressure"          // a full subscription makes publishers wait
	Reconnect      Feature = "reconnect"              // a connection that was lost is mended
	BinaryMetadata Feature = "binary metadata values" // control characters, NUL, invalid UTF-8
	LargeMetadata  Feature = "large metadata values"  // of 64 KiB
	OddKeys        Feature = "odd metadata keys"      // spaces, punctuation, letters beyond ASCII
)

// allFeatures is in the order of the report.
var allFeatures = []Feature{
	Durable, AddedTopics, Groups, Ephemeral, Patterns, Order, NackOrder, NackPassing, Ordered, BackPressure, Reconnect,
	BatchPublish, DelayedPublish, Requeue, PoisonQueue, Removal, Ping, Depth, DepthDetail,
	BinaryMetadata, LargeMetadata, OddKeys,
}

// Features says in what a transport differs from a complete one.
type Features struct {
	// Lacks are the features that the transport has not got, each with the reason.
	Lacks map[Feature]string

	// MaxMessageBytes is the largest payload that the transport takes. 0 means
	// [transports.DefaultMaxMessageBytes].
	MaxMessageBytes int
}

func (f Features) withDefaults() Features {
	if f.MaxMessageBytes == 0 {
		f.MaxMessageBytes = transports.DefaultMaxMessageBytes
	}
	return f
}

// lacks returns the first of the needed features that is lacking, and why.
func (f Features) lacks(needs []Feature) (missing Feature, why string) {
	for _, need := range needs {
		if why, ok := f.Lacks[need]; ok {
			return need, why
		}
	}
	return "", ""
}

// check returns every disagreement between what is declared, what the transport
// implements, and what the harness can do.
func (f Features) check(h Harness, tr transports.Transport) error {
	implements := map[Feature]bool{
		BackPressure: h.OpenBounded != nil,
		Reconnect:    h.OpenCuttable != nil,
	}
	_, implements[BatchPublish] = tr.(transports.BatchPublisher)
	_, implements[Requeue] = tr.(transports.Requeuer)
	_, implements[PoisonQueue] = tr.(transports.PoisonQueue)
	_, implements[Removal] = tr.(transports.SubscriptionRemover)
	_, implements[Ping] = tr.(transports.Pinger)
	_, implements[Depth] = tr.(transports.DepthReporter)

	var faults []error
	known := make(map[Feature]bool, len(allFeatures))
	for _, feature := range allFeatures {
		known[feature] = true
		why, lacking := f.Lacks[feature]
		has, testable := implements[feature]
		switch {
		case lacking && why == "":
			faults = append(faults, fmt.Errorf("%q is declared to be lacking, without a reason", feature))
		case lacking && testable && has:
			faults = append(faults, fmt.Errorf("%q is declared to be lacking, and is there", feature))
		case !lacking && testable && !has:
			faults = append(faults, fmt.Errorf("%q is missing, and not declared to be lacking", feature))
		}
	}
	for feature := range f.Lacks {
		if !known[feature] {
			faults = append(faults, fmt.Errorf("%q is no feature", feature))
		}
	}
	return errors.Join(faults...)
}

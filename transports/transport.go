package transports

import (
	"context"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Transport carries messages from publishers to subscriptions. Its methods may
// be called concurrently. Publish and Close have the shapes of Watermill's
// message.Publisher.
type Transport interface {
	// Publish sends messages to a topic, in order, and returns nil once every
	// one of them is as durable as the transport makes it. It blocks while the
	// broker is slow, down or full, until the context of the first message
	// ends. After an error some of the messages may have been sent;
	// [*PublishError] says which were not when more than one was asked for.
	//
	// A message belongs to the transport until Publish returns and may be
	// reused afterwards. Publish does not change it.
	Publish(topic string, messages ...*message.Message) error

	// Subscribe declares s and returns the channel of its deliveries. When it
	// returns, the subscription exists: whatever is published from now on
	// reaches it. At most s.Concurrency delivered messages are unsettled at a
	// time. Delivered messages are copies that belong to the receiver.
	//
	// The receiver settles each message with Ack or Nack. A nacked message goes
	// back to its subscription at once, to its old place when the transport can.
	// One that is nacked again and again backs off. Meanwhile others are delivered
	// when the transport can, unless s is Ordered.
	//
	// When ctx ends, intake stops: messages that nobody received go back, those
	// delivered can still be settled, and the channel is closed when the last of
	// them is. A delivered message's own context does not end with ctx; it has
	// ctx's values, and ends with Close or after the channel was closed.
	//
	// The channel is also closed when the subscription is lost for good.
	Subscribe(ctx context.Context, s Subscription) (<-chan *message.Message, error)

	// Close ends every subscription at once: contexts of delivered messages are
	// cancelled with [ErrClosed] as the cause, unsettled messages go back, and
	// channels are closed. It may be called more than once and concurrently.
	Close() error
}

// Subscription says what a consumer group receives.
type Subscription struct {
	// Name is the durable identity of the consumer group, such as
	// "shop.send-welcome-email". Subscriptions of different names each get every
	// message; consumers of one name share them.
	Name string

	// Topics are patterns of the topics to receive, see [Match]. A durable
	// subscription that exists with other topics receives those of both.
	Topics []string

	// Concurrency is the most messages delivered and not yet settled, at least 1.
	Concurrency int

	// Ordered asks for messages in the order of their publishing, on one active
	// consumer of the group at a time.
	Ordered bool

	// Ephemeral subscriptions see every event from now on and are deleted, with
	// what waits in them, when they end. Each is a group of its own: a name that
	// is taken is refused, so its owner makes it unique, by a UUID for example.
	Ephemeral bool

	// OnInterruption, if set, is called when the subscription loses its consumer, so that
	// nothing is delivered although the transport goes on trying, again when the cause
	// changes, and with the zero value when it receives again, before the first message.
	// It is not called for a subscription that ends. Calls come one at a time and have to
	// be quick; messages delivered before may still be in the receiver's hands. A
	// transport that does not know whether it receives never calls it.
	OnInterruption func(Interruption)
}

// Interruption says why a subscription receives nothing. The zero value says that it
// receives again.
type Interruption struct {
	// Cause is what the broker or the client said. nil means that the subscription receives.
	Cause error

	// Missing reports that the subscription never gets what is published until it receives
	// again: an ephemeral one that was lost with the connection.
	Missing bool
}

// Validate returns every fault of s in one joined error.
func (s Subscription) Validate() error {
	var faults []error
	if s.Name == "" {
		faults = append(faults, errors.New("subscription name is empty"))
	}
	if !utf8.ValidString(s.Name) {
		faults = append(faults, fmt.Errorf("subscription name %q is not valid UTF-8", s.Name))
	}
	if i := firstControl(s.Name); i >= 0 {
		faults = append(faults, fmt.Errorf("subscription name %q has a control character at byte %d", s.Name, i))
	}
	if len(s.Topics) == 0 {
		faults = append(faults, fmt.Errorf("subscription %q has no topics", s.Name))
	}
	for _, pattern := range s.Topics {
		if err := ValidatePattern(pattern); err != nil {
			faults = append(faults, fmt.Errorf("subscription %q: %w", s.Name, err))
		}
	}
	if s.Concurrency < 1 {
		faults = append(faults, fmt.Errorf("subscription %q has concurrency %d; it takes at least 1", s.Name, s.Concurrency))
	}
	return errors.Join(faults...)
}

// firstControl returns the index of the first control character in s, or -1.
func firstControl(s string) int {
	for i, r := range s {
		if unicode.IsControl(r) {
			return i
		}
	}
	return -1
}

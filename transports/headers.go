package transports

import (
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Metadata keys that the library itself puts on messages, all of them beginning
// with HeaderPrefix. They belong to one delivery path, not to the event: a
// message that is redriven starts without them.
const (
	HeaderPrefix = "tidings_"

	HeaderTopic         = HeaderPrefix + "topic"          // topic it was published to, where that is not its ce_type
	HeaderAttempts      = HeaderPrefix + "attempts"       // times that the subscription's handler was called for it
	HeaderRedeliveries  = HeaderPrefix + "redeliveries"   // delayed redeliveries that it has had
	HeaderFirstFailure  = HeaderPrefix + "first_failure"  // time of the first failure, RFC 3339
	HeaderDeferredSince = HeaderPrefix + "deferred_since" // time since when the subscription could not take it, RFC 3339

	HeaderPoisonReason       = HeaderPrefix + "poison_reason"
	HeaderPoisonAttempts     = HeaderPrefix + "poison_attempts"
	HeaderPoisonFirstFailure = HeaderPrefix + "poison_first_failure"
	HeaderPoisonErrorType    = HeaderPrefix + "poison_error_type"
	HeaderPoisonStack        = HeaderPrefix + "poison_stack"
	HeaderPoisonTime         = HeaderPrefix + "poison_time"
	HeaderPoisonSubscription = HeaderPrefix + "poison_subscription"
	HeaderPoisonTopic        = HeaderPrefix + "poison_topic"
	HeaderPoisonService      = HeaderPrefix + "poison_service"
	HeaderPoisonHost         = HeaderPrefix + "poison_host"
)

// deliveryHeaders are of the deliveries to one subscription. Another subscription that gets
// the message, because it was published again or was poisoned to a topic, begins its own.
var deliveryHeaders = [...]string{HeaderAttempts, HeaderRedeliveries, HeaderFirstFailure, HeaderDeferredSince}

// ForPublish returns msg without the headers of the deliveries that it has had, so that its
// next subscriptions don't count them as theirs: msg itself when it has none of them, else
// a copy that shares the payload. Transports call it on each message that is published.
func ForPublish(msg *message.Message) *message.Message {
	for _, key := range deliveryHeaders {
		if _, ok := msg.Metadata[key]; !ok {
			continue
		}
		out := &message.Message{UUID: msg.UUID, Metadata: maps.Clone(msg.Metadata), Payload: msg.Payload}
		out.SetContext(msg.Context())
		for _, key := range deliveryHeaders {
			delete(out.Metadata, key)
		}
		return out
	}
	return msg
}

// Keys of the CloudEvents attributes that transports need, see package events.
const (
	typeKey   = "ce_type"
	sourceKey = "ce_source"
)

// Topic returns the topic that a delivered message was published to.
func Topic(msg *message.Message) string {
	if topic, ok := msg.Metadata[HeaderTopic]; ok {
		return topic
	}
	return msg.Metadata[typeKey]
}

// SetTopic makes [Topic] return topic. Transports call it on each message that
// they deliver; it writes nothing when the message's type is its topic.
func SetTopic(msg *message.Message, topic string) {
	if msg.Metadata[typeKey] == topic {
		delete(msg.Metadata, HeaderTopic)
		return
	}
	if msg.Metadata == nil {
		msg.Metadata = make(message.Metadata)
	}
	msg.Metadata[HeaderTopic] = topic
}

// EventKey identifies an event: CloudEvents 1.0 asks that source and id together
// are unique.
type EventKey struct{ Source, ID string }

// KeyOf returns the key of a message's event.
func KeyOf(msg *message.Message) EventKey {
	return EventKey{Source: msg.Metadata[sourceKey], ID: msg.UUID}
}

// Poisoned is a message that could not be handled, with what is known of its
// failure.
type Poisoned struct {
	Handle PoisonHandle // names it for requeue and discard; set by the transport's listing

	Message *message.Message // id, payload and metadata as they were, and the headers of the failure

	Reason       string    // the handler's error
	ErrorType    string    // Go type of the innermost error
	Stack        string    // of a panic; truncated
	Attempts     int       // times that the handler was called
	FirstFailure time.Time // zero when unknown
	LastFailure  time.Time // when it was poisoned
	Subscription string
	Topic        string // where it was published
	Service      string // who gave up
	Host         string // and where
}

// Key identifies the event. It is not unique in a poison queue, see [PoisonQueue].
func (p Poisoned) Key() EventKey { return KeyOf(p.Message) }

// WritePoisoned writes the failure into the headers of p.Message, in place of an
// earlier one and of the headers of its deliveries, which have ended.
func WritePoisoned(p Poisoned) {
	set := func(key, value string) {
		if value == "" {
			delete(p.Message.Metadata, key)
			return
		}
		p.Message.Metadata[key] = value
	}
	for _, key := range deliveryHeaders {
		delete(p.Message.Metadata, key)
	}
	set(HeaderPoisonReason, p.Reason)
	set(HeaderPoisonErrorType, p.ErrorType)
	set(HeaderPoisonStack, p.Stack)
	set(HeaderPoisonAttempts, strconv.Itoa(p.Attempts))
	set(HeaderPoisonFirstFailure, formatTime(p.FirstFailure))
	set(HeaderPoisonTime, formatTime(p.LastFailure))
	set(HeaderPoisonSubscription, p.Subscription)
	set(HeaderPoisonTopic, p.Topic)
	set(HeaderPoisonService, p.Service)
	set(HeaderPoisonHost, p.Host)
}

// ReadPoisoned is the reverse of [WritePoisoned].
func ReadPoisoned(msg *message.Message) Poisoned {
	md := msg.Metadata
	attempts, firstFailure := HeaderPoisonAttempts, HeaderPoisonFirstFailure
	if _, ok := md[attempts]; !ok { // the broker has given it up, in the middle of its deliveries
		attempts, firstFailure = HeaderAttempts, HeaderFirstFailure
	}
	return Poisoned{
		Message:      msg,
		Reason:       md[HeaderPoisonReason],
		ErrorType:    md[HeaderPoisonErrorType],
		Stack:        md[HeaderPoisonStack],
		Attempts:     count(md, attempts),
		FirstFailure: parseTime(md[firstFailure]),
		LastFailure:  parseTime(md[HeaderPoisonTime]),
		Subscription: md[HeaderPoisonSubscription],
		Topic:        md[HeaderPoisonTopic],
		Service:      md[HeaderPoisonService],
		Host:         md[HeaderPoisonHost],
	}
}

// Attempts returns how often the subscription's handler was called for a
// message in earlier deliveries, 0 when it never was. A header that is not a
// count, or not a sane one, is read as 0.
func Attempts(msg *message.Message) int { return count(msg.Metadata, HeaderAttempts) }

func count(md message.Metadata, key string) int {
	s, ok := md[key]
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 30) // with room to count on, on 32 bits too
	if err != nil {
		return 0
	}
	return int(n)
}

// StripHeaders removes the library's own headers from a message's metadata, the
// topic excepted, so that it can start afresh.
func StripHeaders(md message.Metadata) {
	for key := range md {
		if strings.HasPrefix(key, HeaderPrefix) && key != HeaderTopic {
			delete(md, key)
		}
	}
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

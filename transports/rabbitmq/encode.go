package rabbitmq

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// Headers on the wire. Attributes have the names of the AMQP protocol binding of
// CloudEvents, section 3.1.3: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md
const (
	attributePrefix      = "cloudEvents_"
	otherAttributePrefix = "cloudEvents:" // read as well
	idHeader             = attributePrefix + "id"
	specVersionHeader    = attributePrefix + "specversion"

	watermillID = "_watermill_message_uuid" // where plain Watermill services look for the id

	internalPrefix = "tidings-" // headers of the transport's own, which nobody sees

	// escapePrefix hides metadata whose name means something to the broker, or to this
	// transport, on the wire: "x-death" travels as "tidings_amqp_x-death".
	escapePrefix = transports.HeaderPrefix + "amqp_"
)

const maxShortString = 255 // bytes of a header's name or of most properties (AMQP 0-9-1, section 4.2.5.3)

// headerOf returns the header that a metadata key travels as.
func headerOf(key string) string {
	name, isAttribute := strings.CutPrefix(key, events.AttributePrefix)
	switch {
	case isAttribute && name != "id" && name != "specversion":
		return attributePrefix + name
	case isAttribute, reserved(key):
		return escapePrefix + key
	}
	return key
}

// reserved reports whether a header of that name would not be taken for metadata, or
// would make the broker do something: route to further queues (CC, BCC), drop the message
// as a dead-letter circle (x-death).
func reserved(key string) bool {
	switch key {
	case events.ContentTypeKey, watermillID, "CC", "BCC":
		return true
	}
	for _, prefix := range []string{"x-", "cloudEvents", internalPrefix, escapePrefix} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// encode makes the AMQP message of a Watermill message. The payload is not copied. What
// the broker has written on a received message, x-death for example, is not sent again.
func encode(msg *message.Message) amqp.Publishing {
	headers := make(amqp.Table, len(msg.Metadata)+3)
	out := amqp.Publishing{Headers: headers, DeliveryMode: amqp.Persistent, Body: msg.Payload}
	for key, value := range msg.Metadata {
		if key == events.ContentTypeKey && value != "" && len(value) <= maxShortString {
			out.ContentType = value
			continue
		}
		headers[headerOf(key)] = value
	}
	if msg.UUID != "" {
		headers[idHeader] = msg.UUID
		headers[watermillID] = msg.UUID
	}
	headers[specVersionHeader] = events.SpecVersion
	property := func(field *string, value string) {
		if len(value) <= maxShortString {
			*field = value
		}
	}
	property(&out.MessageId, msg.UUID)
	property(&out.Type, msg.Metadata[typeKey])
	property(&out.AppId, msg.Metadata[sourceKey])
	property(&out.CorrelationId, msg.Metadata[correlationKey])
	out.Timestamp, _ = time.Parse(time.RFC3339Nano, msg.Metadata[timeKey]) // zero, so left out, when it is no time
	for key := range headers {
		if mayBeProperty(key) && setProperty(&out, key, msg.Metadata[key]) {
			delete(headers, key)
		}
	}
	return out
}

// Metadata keys of the attributes that have a property in AMQP too.
const (
	typeKey        = events.AttributePrefix + "type"
	sourceKey      = events.AttributePrefix + "source"
	correlationKey = events.AttributePrefix + "correlationid"
	timeKey        = events.AttributePrefix + "time"
)

// propertyRoom is more than the properties besides the headers take, and the frame
// around them: 12 short strings and a timestamp.
const propertyRoom = 12*256 + 64

// headerSize returns about how many bytes the content header of a message takes. It has
// to fit into one frame (AMQP 0-9-1, section 4.2.6).
func headerSize(headers amqp.Table) int {
	size := propertyRoom
	for key, value := range headers {
		size += len(key) + 6 // lengths and type
		if s, ok := value.(string); ok {
			size += len(s)
		}
	}
	return size
}

// checkHeaders returns an [transports.ErrTooLarge] for headers that would end the
// connection: the whole of them over a frame, or a name over a short string.
func checkHeaders(headers amqp.Table, frameSize int) error {
	var faults []error
	for key := range headers {
		if len(key) > maxShortString {
			faults = append(faults, fmt.Errorf("%w: the metadata key %.40q… has %d bytes, limit %d", transports.ErrTooLarge, key, len(key), maxShortString))
		}
	}
	if size := headerSize(headers); size > frameSize {
		faults = append(faults, fmt.Errorf("%w: metadata of about %d bytes, which the broker takes %d of in all", transports.ErrTooLarge, size, frameSize))
	}
	return errors.Join(faults...)
}

// keptWhenShort is how much is left of a metadata value that shrink shortens, in bytes.
const keptWhenShort = 256

// shrink makes headers fit, for a message that must not be lost because it has gained a
// few in the meantime: what says most of a failure goes first, then the longest values
// of others. It names what it has shortened in a header.
func shrink(headers amqp.Table, frameSize int) {
	for key := range headers {
		if len(key) > maxShortString { // by the escape; no broker sent it so long
			delete(headers, key)
		}
	}
	if headerSize(headers) <= frameSize {
		return
	}
	byLength := slices.SortedFunc(maps.Keys(headers), func(a, b string) int {
		return rank(b, headers[b]) - rank(a, headers[a])
	})
	var shortened []string
	for _, key := range byLength {
		value, ok := headers[key].(string)
		if !ok || len(value) <= keptWhenShort {
			continue
		}
		headers[key] = value[:keptWhenShort]
		shortened = append(shortened, key)
		headers[truncatedHeader] = cut(strings.Join(shortened, " "))
		if headerSize(headers) <= frameSize {
			return
		}
	}
	// Many short ones then. A message over a frame would end the connection, again and again.
	for _, key := range byLength {
		if headerSize(headers) <= frameSize {
			return
		}
		if key == idHeader || key == watermillID {
			continue
		}
		delete(headers, key)
		shortened = append(shortened, key)
		headers[truncatedHeader] = cut(strings.Join(shortened, " "))
	}
}

func cut(names string) string { return names[:min(len(names), 4*keptWhenShort)] }

// truncatedHeader names the metadata that shrink has shortened.
const truncatedHeader = transports.HeaderPrefix + "truncated"

// rank orders headers by how soon they are shortened.
func rank(key string, value any) int {
	s, _ := value.(string)
	switch key {
	case transports.HeaderPoisonStack:
		return 1 << 30
	case transports.HeaderPoisonReason:
		return 1<<30 - 1
	case idHeader, watermillID:
		return 0
	}
	return len(s)
}

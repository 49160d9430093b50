package rabbitmq

import (
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Properties of AMQP that encode would not write by itself are metadata, so that a message
// of another service keeps them through retries, the poison queue and other transports.
// The content encoding has its own name, the others a prefix: metadata such as "priority"
// or "expiration" is the service's own, and must not make the broker do something.
const (
	contentEncodingKey = "content-encoding"
	propertyPrefix     = "amqp-"

	replyToKey    = propertyPrefix + "reply-to"
	priorityKey   = propertyPrefix + "priority"
	messageIDKey  = propertyPrefix + "message-id"     // where it is not the event's id
	typeNameKey   = propertyPrefix + "type"           // where it is not ce_type
	appIDKey      = propertyPrefix + "app-id"         // where it is not ce_source
	correlateKey  = propertyPrefix + "correlation-id" // where it is not ce_correlationid
	timestampKey  = propertyPrefix + "timestamp"      // where it is not ce_time to the second
	expirationKey = propertyPrefix + "expiration"     // to be seen, and not sent again
	userIDKey     = propertyPrefix + "user-id"        // the same
)

// mayBeProperty is a quick look at a key.
func mayBeProperty(key string) bool {
	return key == contentEncodingKey || strings.HasPrefix(key, propertyPrefix)
}

// setProperty writes metadata into the property that it was read from, in place of what an
// attribute has written there. It reports false for what keepProperties would not read, or not one that may be sent: an expiration would delete the copy in a
// poison queue or cut a delay short, and the broker refuses a user ID that is not the
// connection's. Those travel as headers.
func setProperty(out *amqp.Publishing, key, value string) bool {
	field := map[string]*string{
		contentEncodingKey: &out.ContentEncoding, replyToKey: &out.ReplyTo, messageIDKey: &out.MessageId, typeNameKey: &out.Type,
		appIDKey: &out.AppId, correlateKey: &out.CorrelationId,
	}[key]
	switch {
	case key == replyToKey && value == "amq.rabbitmq.reply-to": // the broker wants a consumer of ours there, and closes the channel
		return false
	case field != nil && value != "" && len(value) <= maxShortString && (key == contentEncodingKey || key == replyToKey || *field != "" && *field != value):
		*field = value
		return true
	case key == priorityKey:
		n, err := strconv.ParseUint(value, 10, 8)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != value {
			return false
		}
		out.Priority = uint8(n)
		return true
	case key == timestampKey:
		at, err := time.Parse(time.RFC3339, value)
		if err != nil || at.UTC().Format(time.RFC3339) != value || out.Timestamp.IsZero() || out.Timestamp.Truncate(time.Second).Equal(at) {
			return false
		}
		out.Timestamp = at
		return true
	}
	return false
}

// keepProperties writes the properties of a delivery that encode would not write again into
// the metadata of its message.
func keepProperties(msg *message.Message, d *amqp.Delivery) {
	keep := func(key, value, written string) {
		if _, there := msg.Metadata[key]; !there && value != "" && value != written {
			msg.Metadata[key] = value
		}
	}
	keep(contentEncodingKey, d.ContentEncoding, "")
	keep(replyToKey, d.ReplyTo, "")
	keep(expirationKey, d.Expiration, "")
	keep(userIDKey, d.UserId, "")
	if d.Priority > 0 {
		keep(priorityKey, strconv.Itoa(int(d.Priority)), "")
	}
	keep(messageIDKey, d.MessageId, short(msg.UUID))
	keep(typeNameKey, d.Type, short(msg.Metadata[typeKey]))
	keep(appIDKey, d.AppId, short(msg.Metadata[sourceKey]))
	keep(correlateKey, d.CorrelationId, short(msg.Metadata[correlationKey]))
	if !d.Timestamp.IsZero() {
		keep(timestampKey, d.Timestamp.UTC().Format(time.RFC3339), second(msg.Metadata[timeKey]))
	}
}

// short returns what fits into a property.
func short(s string) string {
	if len(s) > maxShortString {
		return ""
	}
	return s
}

// second returns the time that encode would write, "" for none.
func second(s string) string {
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return ""
	}
	return at.UTC().Truncate(time.Second).Format(time.RFC3339)
}

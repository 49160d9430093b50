package amqp

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

// maxHeaderBytes is the most that the headers of a message may take. They must fit into
// one frame, of which 128 KiB is RabbitMQ's default size (frame_max), with the properties
// that watermill-amqp or its PostprocessPublishing may add.
const maxHeaderBytes = 120 << 10

// marshaler writes what watermill-amqp's own marshaler writes, and reads what anybody
// writes: the original refuses a header that is not a string, such as the x-death of a
// message that was dead-lettered, and its subscriber then requeues the message without
// end.
type marshaler struct{ wmamqp.DefaultMarshaler }

// Marshal refuses headers that do not fit into a frame: the client library would split
// them, and the broker would close the connection, with all that is in flight on it.
func (m marshaler) Marshal(msg *message.Message) (amqp091.Publishing, error) {
	size := len(msg.UUID) + len(wmamqp.DefaultMessageUUIDHeaderKey)
	for key, value := range msg.Metadata {
		size += len(key) + len(value) + 6 // two lengths and the type
		if len(key) > 255 {
			return amqp091.Publishing{}, fmt.Errorf("%w: metadata key of %d bytes, limit 255", transports.ErrTooLarge, len(key))
		}
	}
	if size > maxHeaderBytes {
		return amqp091.Publishing{}, fmt.Errorf("%w: metadata of %d bytes, limit %d", transports.ErrTooLarge, size, maxHeaderBytes)
	}
	out, err := m.DefaultMarshaler.Marshal(msg)
	if encoding := msg.Metadata["content-encoding"]; len(encoding) <= 255 {
		out.ContentEncoding = encoding
	}
	return out, err
}

// Unmarshal never fails.
func (m marshaler) Unmarshal(delivery amqp091.Delivery) (*message.Message, error) {
	idKey := m.MessageUUIDHeaderKey
	if idKey == "" {
		idKey = wmamqp.DefaultMessageUUIDHeaderKey
	}
	msg := message.NewMessage(delivery.MessageId, delivery.Body)
	for key, value := range delivery.Headers {
		if key == idKey {
			msg.UUID = text(value)
			continue
		}
		msg.Metadata[key] = text(value)
	}
	// The native properties of producers that have no Watermill.
	property := func(key, value string) {
		if _, taken := msg.Metadata[key]; !taken && value != "" {
			msg.Metadata[key] = value
		}
	}
	property("content-type", delivery.ContentType)
	property("content-encoding", delivery.ContentEncoding)
	property("correlation_id", delivery.CorrelationId)
	// By the names that they have on transports/rabbitmq, which sends them on as properties.
	property("amqp-reply-to", delivery.ReplyTo)
	said := func(attribute string) bool { // by a header, as in messages of transports/rabbitmq
		return delivery.Headers["cloudEvents_"+attribute] != nil || delivery.Headers["ce_"+attribute] != nil
	}
	if !said("type") {
		property("amqp-type", delivery.Type)
	}
	if !said("source") {
		property("amqp-app-id", delivery.AppId)
	}
	property("amqp-expiration", delivery.Expiration)
	property("amqp-user-id", delivery.UserId)
	if delivery.Priority > 0 {
		property("amqp-priority", strconv.Itoa(int(delivery.Priority)))
	}
	if delivery.MessageId != msg.UUID {
		property("amqp-message-id", delivery.MessageId)
	}
	if !delivery.Timestamp.IsZero() && !said("time") {
		property("amqp-timestamp", delivery.Timestamp.UTC().Format(time.RFC3339))
	}
	return msg, nil
}

// text returns a header's value, of any type that AMQP has, as a string.
func text(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return string(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32)
	case amqp091.Table, []any:
		if b, err := json.Marshal(v); err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(value)
}

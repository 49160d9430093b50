package rabbitmq

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// decode makes the Watermill message of a delivery. It takes what it finds: a message
// can come from anyone. exchange is the topic exchange, whose routing keys are topics.
func decode(d *amqp.Delivery, exchange string) *message.Message {
	metadata := make(message.Metadata, len(d.Headers)+2)
	_, ours := d.Headers[dueHeader] // the broker's headers come from our own tiers
	for header, value := range d.Headers {
		if key, ok := keyOf(header); ok && !(ours && brokers(header)) {
			metadata[key] = text(value)
		}
	}
	id := first(d.Headers, idHeader, otherAttributePrefix+"id", watermillID)
	if id == "" {
		id = d.MessageId
	}
	setDefault := func(key, value string) {
		if _, there := metadata[key]; !there && value != "" {
			metadata[key] = value
		}
	}
	setDefault(events.ContentTypeKey, d.ContentType)
	setDefault(typeKey, d.Type)
	setDefault(sourceKey, d.AppId)
	setDefault(correlationKey, d.CorrelationId)
	setDefault(correlationKey, metadata["correlation_id"]) // of plain Watermill services
	if !d.Timestamp.IsZero() {
		setDefault(timeKey, d.Timestamp.UTC().Format(time.RFC3339))
	}
	msg := message.NewMessage(id, d.Body)
	msg.Metadata = metadata
	keepProperties(msg, d)
	if due := text(d.Headers[dueHeader]); d.Exchange == exchange || due == exchange {
		transports.SetTopic(msg, d.RoutingKey)
	}
	return msg
}

// keyOf returns the metadata key of a header, false for one that is not metadata.
func keyOf(header string) (string, bool) {
	switch header {
	case watermillID, idHeader, specVersionHeader, otherAttributePrefix + "id", otherAttributePrefix + "specversion":
		return "", false
	}
	switch {
	case counts(header):
		return "", false
	case strings.HasPrefix(header, attributePrefix):
		return events.AttributePrefix + header[len(attributePrefix):], true
	case strings.HasPrefix(header, otherAttributePrefix):
		return events.AttributePrefix + header[len(otherAttributePrefix):], true
	case strings.HasPrefix(header, internalPrefix):
		return "", false
	case strings.HasPrefix(header, escapePrefix):
		return header[len(escapePrefix):], true
	}
	return header, true
}

// counts reports whether a header is one of those in which a quorum queue counts deliveries.
func counts(header string) bool { return header == "x-delivery-count" || header == "x-acquired-count" }

// brokers reports whether the broker writes a header when it dead-letters a message.
func brokers(header string) bool {
	return header == "x-death" || strings.HasPrefix(header, "x-first-death-") || strings.HasPrefix(header, "x-last-death-")
}

// first returns the first of the headers that has text.
func first(headers amqp.Table, names ...string) string {
	for _, name := range names {
		if s := text(headers[name]); s != "" {
			return s
		}
	}
	return ""
}

// text returns a header's value, of whatever type, as text: times as RFC 3339, tables
// and lists as JSON.
func text(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return string(v)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case amqp.Decimal:
		return decimal(v)
	case amqp.Table, []any:
		out, err := json.Marshal(jsonValue(v))
		if err != nil { // a number that JSON has no notation for
			return fmt.Sprint(v)
		}
		return string(out)
	default: // the numbers
		return fmt.Sprint(v)
	}
}

// jsonValue makes a value for encoding/json of a table's or list's, whose texts may be
// bytes.
func jsonValue(value any) any {
	switch v := value.(type) {
	case amqp.Table:
		out := make(map[string]any, len(v))
		for key, element := range v {
			out[key] = jsonValue(element)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			out[i] = jsonValue(element)
		}
		return out
	case bool, int8, uint8, int16, uint16, int32, uint32, int, int64, float32, float64, nil:
		return v
	default:
		return text(v)
	}
}

// decimal writes a number of Scale digits behind the point.
func decimal(d amqp.Decimal) string {
	digits := strconv.FormatInt(int64(d.Value), 10)
	if d.Scale == 0 {
		return digits
	}
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	if missing := int(d.Scale) + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	point := len(digits) - int(d.Scale)
	return sign + digits[:point] + "." + digits[point:]
}

// deliveries returns how often a message was delivered before without being settled, as
// quorum queues count. Classic queues only tell that it was. One that was never delivered
// can have a count that was another broker's.
func deliveries(d *amqp.Delivery) int {
	if !d.Redelivered {
		return 0
	}
	switch n := d.Headers["x-delivery-count"].(type) {
	case int64:
		return int(n)
	case int32:
		return int(n)
	case int16:
		return int(n)
	case int8:
		return int(n)
	case uint8:
		return int(n)
	}
	return 0
}

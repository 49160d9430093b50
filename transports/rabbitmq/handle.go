package rabbitmq

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/internal/poisoned"
	"github.com/gotidings/tidings/transports"
)

// A queue gives its messages no identity, so a handle names them by their whole content:
// properties, headers, with the failure and its time among them, and body. Messages that
// are the same to the last byte are told apart by their place among the others.

// sighting is one message of a poison queue, as a listing has seen it.
type sighting struct {
	digest poisoned.Digest
	index  int // among those of the same digest, the oldest has 0
	of     int // how many there were
}

// present reports whether the message is there when n messages have its digest. Whoever
// takes several takes them by ascending index, so that a handle that is used twice finds
// nothing at the second time.
func (s sighting) present(n int) bool { return n >= s.of-s.index }

// digestOf returns the digest of a message as it is at the broker, without what the broker
// changes at each delivery.
func digestOf(d *amqp.Delivery) poisoned.Digest {
	h := sha256.New()
	poisoned.Write(h, d.Exchange, d.RoutingKey, d.ContentType, d.ContentEncoding, strconv.Itoa(int(d.DeliveryMode)), strconv.Itoa(int(d.Priority)),
		d.CorrelationId, d.ReplyTo, d.Expiration, d.MessageId, typed(d.Timestamp), d.Type, d.UserId, d.AppId, string(d.Body))
	for _, key := range slices.Sorted(maps.Keys(d.Headers)) {
		if !counts(key) {
			poisoned.Write(h, key, typed(d.Headers[key]))
		}
	}
	return poisoned.Sum(h)
}

// typed writes a header's value with its type.
func typed(value any) string {
	switch v := value.(type) {
	case amqp.Table:
		var b strings.Builder
		for _, key := range slices.Sorted(maps.Keys(v)) {
			fmt.Fprintf(&b, "%q:%q,", key, typed(v[key]))
		}
		return "{" + b.String() + "}"
	case []any:
		var b strings.Builder
		for _, element := range v {
			fmt.Fprintf(&b, "%q,", typed(element))
		}
		return "[" + b.String() + "]"
	case time.Time: // without the zone of this process
		return "time " + strconv.FormatInt(v.Unix(), 10)
	default:
		return fmt.Sprintf("%T %v", v, v)
	}
}

// handleOf writes the sightings of an event's copies.
func handleOf(copies []sighting) transports.PoisonHandle {
	parts := make([]string, len(copies))
	for i, s := range copies {
		parts[i] = base64.RawURLEncoding.EncodeToString(s.digest[:])
		if s.of > 1 {
			parts[i] += fmt.Sprintf(":%d/%d", s.index, s.of)
		}
	}
	return transports.PoisonHandle(strings.Join(parts, "."))
}

// parseHandle is the reverse of handleOf.
func parseHandle(handle transports.PoisonHandle) ([]sighting, error) {
	var copies []sighting
	for part := range strings.SplitSeq(string(handle), ".") {
		s := sighting{of: 1}
		text, place, identical := strings.Cut(part, ":")
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if identical && err == nil {
			index, of, _ := strings.Cut(place, "/")
			if s.index, err = strconv.Atoi(index); err == nil {
				s.of, err = strconv.Atoi(of)
			}
		}
		if err != nil || len(raw) != len(s.digest) || s.index < 0 || s.index >= s.of {
			return nil, fmt.Errorf("the handle %.40q: %w", handle, transports.ErrNoPoisoned)
		}
		copy(s.digest[:], raw)
		copies = append(copies, s)
	}
	return copies, nil
}

package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// CloudEvents travel in one of two modes (the CloudEvents specification, section
// "Terminology"). In binary mode the payload is the event's data and the metadata has
// its attributes. In structured mode the payload has both, in an event format that the
// content type names.
//
// The bus works in binary mode, and structured mode ends at its edge:
//
//	transport ─► unwrap ─► lanes, gate, correlation, …, handler
//	transport ◄─ wrap ◄─ publish middleware ◄─ Publish
//
// unwrap is called before anything looks at the metadata. What is malformed stays as it
// came, so that it is kept like that in the poison queue, which refuseMalformed sends
// it to.

// structuredPrefix begins the content types of structured mode, section 3 of the
// CloudEvents protocol bindings.
const structuredPrefix = "application/cloudevents"

const batchFormat = "application/cloudevents-batch+json"

var (
	errBatch  = errors.New("a batch of events is not supported; send each as a message of its own")
	errNested = errors.New("the data has a content type of structured mode itself, which an event can't have: say application/json")
)

// structuredType returns the media type of a content type in lower case, without
// parameters, when it is one of structured mode, and "" otherwise. It is asked of every
// message.
func structuredType(contentType string) string {
	if len(contentType) < len(structuredPrefix) || !strings.EqualFold(contentType[:len(structuredPrefix)], structuredPrefix) {
		return ""
	}
	mediaType, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(mediaType))
}

// unwrap makes of a message in structured mode the same event in binary mode: its
// attributes come from inside, whatever the metadata had, and everything else in the
// metadata stays. With an error the message is unchanged. Event formats other than JSON
// are left alone, as the protocol bindings allow: a raw subscription can forward them.
func unwrap(msg *message.Message) error {
	mediaType := structuredType(msg.Metadata[events.ContentTypeKey])
	if mediaType != events.JSONFormat && mediaType != batchFormat {
		return nil
	}
	if _, kept := msg.Metadata[transports.HeaderPoisonSubscription]; kept {
		return nil // a poisoned event that was published to a topic, see poisonTopic: to be kept as it is
	}
	if mediaType == batchFormat {
		return errBatch
	}
	md, data, err := events.ParseJSON(msg.Payload)
	if err != nil {
		return err
	}
	if structuredType(md.DataContentType) != "" {
		return errNested // in binary mode it would be taken for the event itself
	}
	topic := transports.Topic(msg)
	metadata := message.Metadata(md.Encode())
	for key, value := range msg.Metadata {
		if key != events.ContentTypeKey && !strings.HasPrefix(key, events.AttributePrefix) {
			metadata[key] = value
		}
	}
	msg.UUID, msg.Metadata, msg.Payload = md.ID, metadata, data
	if topic != "" {
		transports.SetTopic(msg, topic)
	}
	return nil
}

// refuseMalformed poisons a message that could not be unwrapped. It belongs inside
// Poison, and outside Dedup: such a message has no id to go by.
func refuseMalformed(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		if err := unwrap(msg); err != nil {
			md, _ := events.MetadataFrom(msg.Context()) // Correlation is further out
			return nil, middleware.Permanent(&DecodeError{EventType: md.Type, ContentType: md.DataContentType, Err: err})
		}
		return h(msg)
	}
}

// Structured is a [PublishMiddleware] that sends events in the structured mode of
// CloudEvents. A bus with [Config.StructuredMode] has it as the innermost one. It sends
// copies, so that a middleware further out can change its messages and try again.
func Structured(next PublishFunc) PublishFunc {
	return func(ctx context.Context, batch []transports.Outgoing) error {
		batch = slices.Clone(batch)
		var faults []error
		for i, out := range batch {
			msg, err := wrapped(out.Message)
			if err != nil {
				faults = append(faults, fmt.Errorf("structured mode: event %d of %d: %w", i, len(batch), err))
			}
			batch[i].Message = msg
		}
		if len(faults) > 0 {
			return errors.Join(faults...)
		}
		return next(ctx, batch)
	}
}

// wrapped returns a message in structured mode. The attributes remain in the metadata
// too, as the protocol bindings allow, for routing. What is in structured mode already,
// a batch or a raw event for example, is returned as it is.
func wrapped(msg *message.Message) (*message.Message, error) {
	if structuredType(msg.Metadata[events.ContentTypeKey]) != "" {
		return msg, nil
	}
	text, err := events.AppendJSON(nil, events.DecodeMetadata(msg.UUID, msg.Metadata), msg.Payload)
	if err != nil {
		return nil, err
	}
	metadata := maps.Clone(msg.Metadata)
	metadata[events.ContentTypeKey] = events.JSONFormat
	out := &message.Message{UUID: msg.UUID, Metadata: metadata, Payload: text}
	out.SetContext(msg.Context())
	return out, nil
}

package watermill

import (
	"bytes"
	"maps"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Metadata keys. Those of CloudEvents are the ones of package events, which the seam
// does not import.
const (
	typeKey        = "ce_type"
	sourceKey      = "ce_source"
	correlationKey = "ce_correlationid"
	idKey          = "ce_id"          // where a message is its event's only with CloudEvents
	versionKey     = "ce_specversion" // the same
	version        = "1.0"

	// watermillCorrelation is middleware.CorrelationIDMetadataKey of Watermill, whose
	// package would bring a circuit breaker and a back-off with it.
	watermillCorrelation = "correlation_id"

	// watermillUUID is the header in which several of Watermill's marshalers carry the
	// UUID; others leave it among the metadata.
	watermillUUID = "_watermill_message_uuid"
)

// outgoing returns the message to publish: a copy, since publishers may change what
// they are given, and may keep it after a context has ended or for ever.
func (t *Transport) outgoing(topic string, msg *message.Message) *message.Message {
	out := clone(transports.ForPublish(msg))
	out.SetContext(msg.Context())
	md := out.Metadata
	// For who subscribes by pattern, and to replace what an earlier delivery left.
	transports.SetTopic(out, topic)
	if id := md[correlationKey]; id != "" && md[watermillCorrelation] == "" {
		md[watermillCorrelation] = id
	}
	if t.cfg.CloudEventsHeaders && md[typeKey] != "" && md[sourceKey] != "" && out.UUID != "" {
		md[idKey], md[versionKey] = out.UUID, version
	}
	return out
}

// incoming returns the message to deliver: a copy with a settlement of its own.
func incoming(topic string, msg *message.Message) *message.Message {
	in := clone(msg)
	md := in.Metadata
	for _, key := range []string{watermillUUID, idKey} {
		if in.UUID == "" {
			in.UUID = md[key]
		}
	}
	// What says nothing new is taken away again. An id that differs from the UUID, or
	// another version of CloudEvents, is somebody's statement.
	if md[idKey] == in.UUID {
		delete(md, idKey)
	}
	if md[watermillUUID] == in.UUID {
		delete(md, watermillUUID)
	}
	if md[versionKey] == version {
		delete(md, versionKey)
	}
	if id := md[watermillCorrelation]; id != "" && md[correlationKey] == "" {
		md[correlationKey] = id
	}
	if !transports.HasWildcard(topic) { // else only the publisher knows it
		transports.SetTopic(in, topic)
	}
	return in
}

// clone copies the payload too: message.Copy shares it.
func clone(msg *message.Message) *message.Message {
	out := message.NewMessage(msg.UUID, bytes.Clone(msg.Payload))
	maps.Copy(out.Metadata, msg.Metadata)
	return out
}

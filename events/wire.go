package events

import (
	"strings"
	"time"
)

// AttributePrefix begins the key of every CloudEvents attribute in a message's
// metadata, as in the Kafka protocol binding of CloudEvents: "ce_source". The
// media type of the data is the exception, see [ContentTypeKey].
const AttributePrefix = "ce_"

// ContentTypeKey is the metadata key of the media type of the data.
const ContentTypeKey = "content-type"

const timeKey = AttributePrefix + "time"

// attributes are the text attributes but the id, which is the message's UUID,
// with the metadata key of each.
var attributes = [...]struct{ name, key string }{
	{"source", AttributePrefix + "source"},
	{"type", AttributePrefix + "type"},
	{"subject", AttributePrefix + "subject"},
	{"datacontenttype", ContentTypeKey},
	{"dataschema", AttributePrefix + "dataschema"},
	{"correlationid", AttributePrefix + "correlationid"},
	{"causationid", AttributePrefix + "causationid"},
	{"partitionkey", AttributePrefix + "partitionkey"},
	{"traceparent", AttributePrefix + "traceparent"},
	{"tracestate", AttributePrefix + "tracestate"},
}

// attribute returns the field of one of attributes, nil for any other name.
func (m *Metadata) attribute(name string) *string {
	switch name {
	case "source":
		return &m.Source
	case "type":
		return &m.Type
	case "subject":
		return &m.Subject
	case "datacontenttype":
		return &m.DataContentType
	case "dataschema":
		return &m.DataSchema
	case "correlationid":
		return &m.CorrelationID
	case "causationid":
		return &m.CausationID
	case "partitionkey":
		return &m.PartitionKey
	case "traceparent":
		return &m.TraceParent
	case "tracestate":
		return &m.TraceState
	}
	return nil
}

// reserved reports whether name is an attribute that is not an extension here.
func reserved(name string) bool {
	switch name {
	case "specversion", "id", "time", "data":
		return true
	}
	return new(Metadata).attribute(name) != nil
}

// Encode returns m as the metadata of a message: every non-empty attribute but
// the id, which travels as the message's UUID, and specversion, which transports
// add where their protocol asks for it. Times are written in UTC as RFC 3339.
func (m *Metadata) Encode() map[string]string {
	out := make(map[string]string, 8)
	for i := range attributes {
		if v := *m.attribute(attributes[i].name); v != "" {
			out[attributes[i].key] = v
		}
	}
	if !m.Time.IsZero() {
		out[timeKey] = m.Time.UTC().Format(time.RFC3339Nano)
	}
	for name, v := range m.Extensions {
		out[AttributePrefix+name] = v
	}
	return out
}

// DecodeMetadata reads the metadata of a message: the reverse of
// [Metadata.Encode]. It takes what it finds: an attribute that is missing, or a
// time that is not RFC 3339, is left zero, and keys that are not CloudEvents
// attributes are passed over, since a message can come from anyone.
func DecodeMetadata(id string, wire map[string]string) *Metadata {
	m := &Metadata{ID: id}
	for key, v := range wire {
		if key == ContentTypeKey {
			m.DataContentType = v
			continue
		}
		name, ok := strings.CutPrefix(key, AttributePrefix)
		switch field := m.attribute(name); {
		case !ok || field == &m.DataContentType: // the key of that is another
		case field != nil:
			*field = v
		case name == "time":
			m.Time, _ = time.Parse(time.RFC3339Nano, v) // zero when it is no time, as documented
		case extensionNameProblem(name) == "":
			if m.Extensions == nil {
				m.Extensions = make(map[string]string)
			}
			m.Extensions[name] = v
		}
	}
	return m
}

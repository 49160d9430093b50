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
// with the metadata key and the field of each.
var attributes = [...]struct {
	name  string
	key   string
	field func(*Metadata) *string
}{
	{"source", AttributePrefix + "source", func(m *Metadata) *string { return &m.Source }},
	{"type", AttributePrefix + "type", func(m *Metadata) *string { return &m.Type }},
	{"subject", AttributePrefix + "subject", func(m *Metadata) *string { return &m.Subject }},
	{"datacontenttype", ContentTypeKey, func(m *Metadata) *string { return &m.DataContentType }},
	{"dataschema", AttributePrefix + "dataschema", func(m *Metadata) *string { return &m.DataSchema }},
	{"correlationid", AttributePrefix + "correlationid", func(m *Metadata) *string { return &m.CorrelationID }},
	{"causationid", AttributePrefix + "causationid", func(m *Metadata) *string { return &m.CausationID }},
	{"partitionkey", AttributePrefix + "partitionkey", func(m *Metadata) *string { return &m.PartitionKey }},
	{"traceparent", AttributePrefix + "traceparent", func(m *Metadata) *string { return &m.TraceParent }},
	{"tracestate", AttributePrefix + "tracestate", func(m *Metadata) *string { return &m.TraceState }},
}

// reserved reports whether name is an attribute that is not an extension here.
func reserved(name string) bool {
	switch name {
	case "specversion", "id", "time", "data":
		return true
	}
	for i := range attributes {
		if attributes[i].name == name {
			return true
		}
	}
	return false
}

// Encode returns m as the metadata of a message: every non-empty attribute but
// the id, which travels as the message's UUID, and specversion, which transports
// add where their protocol asks for it. Times are written in UTC as RFC 3339.
func (m *Metadata) Encode() map[string]string {
	out := make(map[string]string, 8)
	for i := range attributes {
		if v := *attributes[i].field(m); v != "" {
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
	found := 0
	for i := range attributes {
		if v, ok := wire[attributes[i].key]; ok {
			*attributes[i].field(m) = v
			found++
		}
	}
	if v, ok := wire[timeKey]; ok {
		m.Time, _ = time.Parse(time.RFC3339Nano, v) // zero when it is no time, as documented
		found++
	}
	if found == len(wire) {
		return m
	}
	for key, v := range wire {
		name, ok := strings.CutPrefix(key, AttributePrefix)
		if !ok || extensionNameProblem(name) != "" {
			continue
		}
		if m.Extensions == nil {
			m.Extensions = make(map[string]string)
		}
		m.Extensions[name] = v
	}
	return m
}

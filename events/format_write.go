package events

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"
	"unicode/utf8"
)

// AppendJSON appends an event in the JSON format to b: the reverse of [ParseJSON],
// which finds the same attributes and the same data in it. The members are always in
// the same order.
//
// What becomes of the data depends on the content type, section 3.1.1 of the format:
//
//   - nil, and only that, is no data.
//   - JSON data is the JSON value itself, with every byte of it but white space around it.
//   - UTF-8 text of a content type text/*, */xml or */*+xml is a string.
//   - Everything else is base64, so that no byte is changed: also data that has no
//     content type, and data whose content type says that it is JSON or text, but
//     which is not.
//
// The error is that of [Metadata.Validate]; b is returned as it was.
func AppendJSON(b []byte, m *Metadata, data []byte) ([]byte, error) {
	if err := m.Validate(); err != nil {
		return b, err
	}
	if len(m.Extensions) > maxMembers-20 { // which are more than the other members
		return b, errors.Join(&ValidationError{"extensions", "are too many"})
	}
	start := len(b)
	b = append(b, `{"specversion":"`+SpecVersion+`"`...)
	b = appendMember(b, "id", m.ID)
	for _, a := range attributes {
		if v := *m.attribute(a.name); v != "" {
			b = appendMember(b, a.name, v)
		}
	}
	if !m.Time.IsZero() {
		b = appendMember(b, "time", m.Time.UTC().Format(time.RFC3339Nano))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Extensions)) {
		b = appendMember(b, name, m.Extensions[name])
	}
	return appendData(b, start, m.DataContentType, data), nil
}

// jsonDepth is how deep encoding/json reads.
const jsonDepth = 10_000

// appendData appends the data and the end of the object that begins at index start.
func appendData(b []byte, start int, contentType string, data []byte) []byte {
	mark := len(b)
	switch {
	case data == nil:
		return append(b, '}')
	case isJSON(contentType) && json.Valid(data) && utf8.Valid(data):
		b = append(b, `,"data":`...)
		b = append(b, bytes.Trim(data, jsonSpace)...)
		b = append(b, '}')
		// Inside the object the data is a level deeper, and readers have their limits.
		if len(data) < 2*jsonDepth || json.Valid(b[start:]) {
			return b
		}
		b = b[:mark]
	case isText(contentType) && utf8.Valid(data):
		b = append(b, `,"data":`...)
		b = appendString(b, data)
		return append(b, '}')
	}
	b = append(b, `,"data_base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, `"}`...)
}

// appendMember appends a comma, a name that needs no escapes, and a text.
func appendMember(b []byte, name, text string) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return appendString(b, text)
}

// appendString appends valid UTF-8 as a JSON string (RFC 8259, section 7).
func appendString[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	done := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&0xf])
		}
	}
	b = append(b, s[done:]...)
	return append(b, '"')
}

package frames

import "encoding/binary"

// Limits of amqp091-go, see its read.go.
const (
	maxDepth    = 32
	maxElements = 8192
)

// A content header (AMQP 0-9-1, section 4.2.6.1) begins with class, weight, the body's size
// and flags for the properties that follow.
const (
	flagsOf      = 12
	propertiesOf = 14

	contentType     = 1 << 15
	contentEncoding = 1 << 14
	headers         = 1 << 13
)

// tableOf returns where the table of headers begins and ends in a content header, after its
// length. ok is false when there is none.
func tableOf(payload []byte) (from, to int, ok bool) {
	if len(payload) < propertiesOf {
		return 0, 0, false
	}
	flags := binary.BigEndian.Uint16(payload[flagsOf:])
	at := propertiesOf
	for _, before := range []uint16{contentType, contentEncoding} {
		if flags&before != 0 {
			if at >= len(payload) {
				return 0, 0, false
			}
			at += 1 + int(payload[at])
		}
	}
	if flags&headers == 0 || at+4 > len(payload) {
		return 0, 0, false
	}
	from = at + 4
	to = from + int(binary.BigEndian.Uint32(payload[at:]))
	return from, to, to <= len(payload)
}

// readable reports whether the client can read the headers of a content header.
func readable(payload []byte) bool {
	from, to, ok := tableOf(payload)
	if !ok {
		return true // there are none; or the client says best what is wrong
	}
	return elements(payload[from:to], true, 0)
}

// elements reports whether the client can read the content of a table, whose elements have
// names, or of a list.
func elements(b []byte, named bool, depth int) bool {
	if depth > maxDepth {
		return false
	}
	for n := 0; len(b) > 0; n++ {
		if n == maxElements {
			return false
		}
		if named {
			if b = skipName(b); b == nil {
				return false
			}
		}
		size := fieldSize(b)
		if size == 0 {
			return false
		}
		if kind := b[0]; (kind == 'A' || kind == 'F') && !elements(b[5:size], kind == 'F', depth+1) {
			return false
		}
		b = b[size:]
	}
	return true
}

// skipName returns what follows a short string, nil when it is cut off.
func skipName(b []byte) []byte {
	if len(b) == 0 || len(b) <= 1+int(b[0]) { // a value has to follow
		return nil
	}
	return b[1+int(b[0]):]
}

// fieldSize returns how many bytes a value takes with its type, 0 when it is cut off or its
// type is unknown. The types are those of https://www.rabbitmq.com/amqp-0-9-1-errata#section_3
func fieldSize(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	size := 0
	switch b[0] {
	case 'V':
		size = 1
	case 't', 'b', 'B':
		size = 2
	case 's', 'u':
		size = 3
	case 'I', 'i', 'f':
		size = 5
	case 'D':
		size = 6
	case 'l', 'd', 'T':
		size = 9
	case 'S', 'x', 'A', 'F':
		if len(b) < 5 {
			return 0
		}
		size = 5 + int(binary.BigEndian.Uint32(b[1:]))
	}
	if size > len(b) {
		return 0
	}
	return size
}

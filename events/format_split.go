package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// member is a member of the JSON object that is an event.
type member struct {
	name  string
	value []byte // valid JSON, without white space around it; part of the text
}

const jsonSpace = " \t\r\n"

// splitObject returns the members of a JSON object, which must be all that there is.
// A name that is there twice is a fault: readers differ in which value they take
// (RFC 8259, section 4), so that such an object says nothing certain. encoding/json
// would take the last one, and would take a name in capitals as well.
func splitObject(text []byte) ([]member, error) {
	if err := checkJSON(text); err != nil {
		return nil, err
	}
	rest := bytes.TrimLeft(text, jsonSpace)
	if rest[0] != '{' {
		return nil, &FormatError{"not a JSON object"}
	}
	members := make([]member, 0, 16)
	seen := make(map[string]bool, 16)
	for {
		rest = bytes.TrimLeft(rest[1:], jsonSpace) // after the brace or a comma
		if rest[0] == '}' {                        // of an object without members
			return members, nil
		}
		end := stringLen(rest)
		name := decodeString(rest[:end])
		rest = bytes.TrimLeft(rest[end:], jsonSpace)
		rest = bytes.TrimLeft(rest[1:], jsonSpace) // after the colon
		end = valueLen(rest)
		switch {
		case seen[name]:
			return nil, &FormatError{fmt.Sprintf("the member %.40q is there twice", name)}
		case len(members) == maxMembers:
			return nil, &FormatError{fmt.Sprintf("it has more than %d members", maxMembers)}
		}
		seen[name] = true
		members = append(members, member{name, rest[:end]})
		rest = bytes.TrimLeft(rest[end:], jsonSpace)
		if rest[0] == '}' {
			return members, nil
		}
	}
}

// checkJSON says why text is not JSON (RFC 8259), or returns nil.
func checkJSON(text []byte) error {
	switch {
	case !utf8.Valid(text): // json would put in replacement characters
		return &FormatError{"not JSON: not valid UTF-8"}
	case json.Valid(text):
		return nil
	case len(bytes.TrimLeft(text, jsonSpace)) == 0:
		return &FormatError{"there is nothing but white space"}
	}
	var value json.RawMessage
	return &FormatError{fmt.Sprintf("not JSON: %v", json.Unmarshal(text, &value))}
}

// valueLen returns the length of the JSON value that b, of a valid object, begins with.
func valueLen(b []byte) int {
	switch b[0] {
	case '"':
		return stringLen(b)
	case '{', '[':
	default:
		return bytes.IndexAny(b, ",}"+jsonSpace)
	}
	for i, depth := 0, 0; ; {
		switch b[i] {
		case '"':
			i += stringLen(b[i:])
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		i++
		if depth == 0 {
			return i
		}
	}
}

// stringLen returns the length of the valid JSON string that b begins with.
func stringLen(b []byte) int {
	for i := 1; ; i++ {
		switch b[i] {
		case '\\':
			i++ // whatever it is, it does not end the string
		case '"':
			return i + 1
		}
	}
}

// decodeString returns what a valid JSON string says.
func decodeString(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it is valid
	return s
}

// hasLoneSurrogate reports whether a valid JSON string has half of a surrogate pair as
// an escape. That is no character; json puts U+FFFD in its place, and so would make one
// of two ids that differ.
func hasLoneSurrogate(quoted []byte) bool {
	for i := 0; i < len(quoted); {
		switch {
		case quoted[i] != '\\':
			i++
		case quoted[i+1] != 'u':
			i += 2
		default:
			unit := codeUnit(quoted[i:])
			i += 6
			if !utf16.IsSurrogate(unit) {
				continue
			}
			if quoted[i] != '\\' || quoted[i+1] != 'u' || utf16.DecodeRune(unit, codeUnit(quoted[i:])) == utf8.RuneError {
				return true
			}
			i += 6
		}
	}
	return false
}

// codeUnit reads the escape \uXXXX that a valid JSON string goes on with.
func codeUnit(escape []byte) rune {
	unit, _ := strconv.ParseUint(string(escape[2:6]), 16, 16) // four hexadecimal digits: the string is valid
	return rune(unit)
}

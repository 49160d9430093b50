// Package fingerprint tells which errors are the same fault: the same text but for what
// differs from event to event, such as ids, numbers, times and quoted names.
package fingerprint

import (
	"hash/fnv"
	"strconv"
	"strings"
)

// maxText is how much of an error's text counts, in bytes: its beginning says what is
// wrong, and a text can be megabytes long.
const maxText = 512

// Of returns the fingerprint of an error of a Go type with a text: 8 hexadecimal digits.
func Of(errorType, text string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(errorType)) // never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(Normal(text)))
	digits := strconv.FormatUint(uint64(h.Sum32()), 16)
	return "00000000"[len(digits):] + digits
}

// Normal returns a text with a # in place of each word that has a digit, and a ? in place
// of what is in double quotes. Only the first 512 bytes count.
func Normal(text string) string {
	text = text[:min(len(text), maxText)]
	var out strings.Builder
	out.Grow(len(text))
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			end := closing(text, i+1)
			out.WriteString(`"?"`)
			i = end
		case wordByte(c):
			end, digit := i, false
			for end < len(text) && wordByte(text[end]) {
				digit = digit || text[end] >= '0' && text[end] <= '9'
				end++
			}
			if digit {
				out.WriteByte('#')
			} else {
				out.WriteString(text[i:end])
			}
			i = end
		default:
			out.WriteByte(c)
			i++
		}
	}
	return out.String()
}

// closing returns the index behind the quote that ends what begins at i, or the end.
func closing(text string, i int) int {
	for i < len(text) {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
		i++
	}
	return len(text)
}

// wordByte reports whether c belongs to a word: letters, digits, what holds ids and times
// together, and every byte of a letter beyond ASCII.
func wordByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= 0x80:
		return true
	}
	return c == '-' || c == '_' || c == '.' || c == ':'
}

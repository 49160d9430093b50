// Package fingerprint tells which errors are the same fault: the same Go type and the same
// text, whatever numbers, ids, times, addresses and quoted values stand in it.
package fingerprint

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
)

// maxText is how many bytes of an error's text are read: its beginning says what is wrong,
// and a text can be megabytes long.
const maxText = 8 * normalizedLength

// Of returns the fingerprint of an error of a Go type with a text: eight hexadecimal
// digits.
func Of(errorType, text string) string {
	sum := sha256.Sum256([]byte(errorType + "\x00" + normalize(text)))
	return hex.EncodeToString(sum[:4])
}

// normalizedLength is how many bytes of a normalized reason count. Reasons are cut off
// when they are long, and where that happens depends on the values in them.
const normalizedLength = 512

// normalize returns a reason with # in place of each number, id, time and address, and "…"
// in place of each quoted value.
func normalize(reason string) string {
	reason = reason[:min(len(reason), maxText)]
	n := normalizer{rest: []rune(strings.ToValidUTF8(reason, "\uFFFD"))}
	for len(n.rest) > 0 && n.out.Len() < normalizedLength {
		n.step()
	}
	s := strings.TrimRight(n.out.String(), " ")
	return s[:min(len(s), normalizedLength)]
}

type normalizer struct {
	rest []rune
	out  strings.Builder
	last rune   // written last
	held string // read after a #, and dropped if another # follows
}

func (n *normalizer) step() {
	r := n.rest[0]
	switch {
	case isQuote(r) && !isWord(n.last):
		if end := closing(n.rest); end > 0 {
			n.rest = n.rest[end+1:]
			n.write(`"…"`)
			return
		}
		n.rest = n.rest[1:]
		n.write(string(r))
	case isWord(r):
		end := 1
		for end < len(n.rest) && (isWord(n.rest[end]) || isHyphen(n.rest[end]) && end+1 < len(n.rest) && isWord(n.rest[end+1])) {
			end++
		}
		word := n.rest[:end]
		n.rest = n.rest[end:]
		n.word(word)
	case unicode.IsSpace(r):
		n.rest = n.rest[1:]
		if n.held == "," {
			n.held = ", "
		} else if n.last != ' ' || n.held != "" {
			n.write(" ")
		}
	case n.last == '#' && n.held == "" && strings.ContainsRune(".:,/+-", r):
		n.held = string(r)
		n.rest = n.rest[1:]
	default:
		n.rest = n.rest[1:]
		n.write(string(r))
	}
}

// word writes a run of letters and digits, with hyphens between them. What has a digit in
// it is a value, and so is what looks like an id in hexadecimal.
func (n *normalizer) word(word []rune) {
	if isUUID(word) {
		n.value()
		return
	}
	for i, part := range strings.FieldsFunc(string(word), isHyphen) {
		if i > 0 {
			if n.last == '#' && n.held == "" {
				n.held = "-"
			} else {
				n.write("-")
			}
		}
		if strings.ContainsFunc(part, unicode.IsDigit) || len(part) >= 8 && isHex(part) {
			n.value()
		} else {
			n.write(part)
		}
	}
}

// value writes a #, unless it goes on with one: 10.0.0.1:5672 is one value, and so is a time.
func (n *normalizer) value() {
	if n.last == '#' {
		n.held = ""
		return
	}
	n.write("#")
}

func (n *normalizer) write(s string) {
	s = n.held + s
	n.held = ""
	n.out.WriteString(s)
	for _, r := range s {
		n.last = r
	}
}

func isQuote(r rune) bool  { return r == '"' || r == '\'' || r == '`' }
func isWord(r rune) bool   { return unicode.IsLetter(r) || unicode.IsDigit(r) }
func isHyphen(r rune) bool { return r == '-' || r == '_' }

// closing returns the index of the quote that ends the one at 0, or 0. A backslash hides
// the one after it, as %q writes it.
func closing(s []rune) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && s[0] == '"':
			i++
		case s[i] == s[0] && (s[0] != '\'' || i+1 == len(s) || !isWord(s[i+1])): // and no apostrophe
			return i
		}
	}
	return 0
}

// isUUID reports whether a word has the form of RFC 9562: digits are not needed, so that
// those without one are found too.
func isUUID(word []rune) bool {
	parts := strings.Split(string(word), "-")
	if len(parts) != 5 {
		return false
	}
	for i, length := range []int{8, 4, 4, 4, 12} {
		if len(parts[i]) != length || !isHex(parts[i]) {
			return false
		}
	}
	return true
}

func isHex(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.Is(unicode.ASCII_Hex_Digit, r) })
}

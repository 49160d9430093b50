package sql

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Metadata is stored as a JSON object of strings, so that it can be read and queried
// with SQL. Watermill's metadata may hold any bytes, which JSON may not, so a byte that
// is not UTF-8 is written as the half of a surrogate pair, \udc80 for 0x80: no valid
// text has that, and other readers see a replacement character there. NUL and the other
// controls are escaped, since PostgreSQL's text can't hold a NUL.

const hexDigits = "0123456789abcdef"

// formatMetadata writes md as JSON, keys in order.
func formatMetadata(md map[string]string) string {
	size := 2
	for key, value := range md {
		size += len(key) + len(value) + len(`"":"",`)
	}
	b := append(make([]byte, 0, size), '{')
	for i, key := range slices.Sorted(maps.Keys(md)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, key)
		b = append(b, ':')
		b = appendString(b, md[key])
	}
	return string(append(b, '}'))
}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(b, s[start:i]...)
				b = append(b, `\udc`...)
				b = append(b, hexDigits[c>>4], hexDigits[c&15])
				start = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		if c == '"' || c == '\\' {
			b = append(b, '\\', c)
		} else {
			b = append(b, `\u00`...)
			b = append(b, hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

var errMetadata = errors.New("metadata is not a JSON object of strings")

// parseMetadata is the reverse of formatMetadata. It reads what other writers make of
// the same object too: white space, and every escape of JSON. The map has room for one
// more, and is never nil.
func parseMetadata(s string) (map[string]string, error) {
	p := parser{s: s}
	md := make(map[string]string, strings.Count(s, `":"`)+1)
	if !p.take('{') {
		return nil, errMetadata
	}
	for first := true; ; first = false {
		if p.take('}') {
			break
		}
		if !first && !p.take(',') {
			return nil, errMetadata
		}
		key, ok := p.text()
		if !ok || !p.take(':') {
			return nil, errMetadata
		}
		value, ok := p.text()
		if !ok {
			return nil, fmt.Errorf("%w: member %q", errMetadata, key)
		}
		md[key] = value
	}
	if p.space(); p.s != "" {
		return nil, errMetadata
	}
	return md, nil
}

// parser has what is left to read.
type parser struct{ s string }

func (p *parser) space() { p.s = strings.TrimLeft(p.s, " \t\r\n") }

func (p *parser) take(c byte) bool {
	p.space()
	if p.s == "" || p.s[0] != c {
		return false
	}
	p.s = p.s[1:]
	return true
}

// text reads a JSON string.
func (p *parser) text() (string, bool) {
	if !p.take('"') {
		return "", false
	}
	end := strings.IndexAny(p.s, `"\`)
	if end < 0 {
		return "", false
	}
	if p.s[end] == '"' { // the usual case shares the memory
		text := p.s[:end]
		p.s = p.s[end+1:]
		return text, true
	}
	var b []byte
	for {
		end := strings.IndexAny(p.s, `"\`)
		if end < 0 || p.s[end] == '\\' && end+1 == len(p.s) {
			return "", false
		}
		b = append(b, p.s[:end]...)
		if p.s[end] == '"' {
			p.s = p.s[end+1:]
			return string(b), true
		}
		escape := p.s[end+1]
		p.s = p.s[end+2:]
		if escape == 'u' {
			var ok bool
			if b, ok = p.unicode(b); !ok {
				return "", false
			}
			continue
		}
		i := strings.IndexByte(`"\/bfnrt`, escape)
		if i < 0 {
			return "", false
		}
		b = append(b, "\"\\/\b\f\n\r\t"[i])
	}
}

// unicode reads what follows \u.
func (p *parser) unicode(b []byte) ([]byte, bool) {
	r, ok := p.hex4()
	if !ok {
		return nil, false
	}
	switch {
	case r >= 0xdc80 && r <= 0xdcff: // a byte of ours
		return append(b, byte(r)), true
	case utf16.IsSurrogate(r):
		if !strings.HasPrefix(p.s, `\u`) {
			return nil, false
		}
		p.s = p.s[2:]
		low, ok := p.hex4()
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return nil, false
		}
	}
	return utf8.AppendRune(b, r), true
}

func (p *parser) hex4() (rune, bool) {
	if len(p.s) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(p.s[:4], 16, 16)
	p.s = p.s[4:]
	return rune(n), err == nil
}

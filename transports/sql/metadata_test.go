package sql

import (
	"encoding/json"
	"maps"
	"testing"
	"unicode/utf8"
)

func TestMetadataRoundTrip(t *testing.T) {
	t.Parallel()
	for name, md := range map[string]map[string]string{
		"none":     {},
		"plain":    {"ce_type": "order.created", "größe 鍵": "😀", "": "empty key"},
		"escapes":  {"a\"b\\": "line\nbreak\ttab\x00nul\x7f", "u": "\u0085\u2028"},
		"no UTF-8": {"latin1": "gr\xf6\xdfe", "any\xff": "\xff\xfe\xc0\x80 and \xed\xb2\x80"},
	} {
		text := formatMetadata(md)
		if !json.Valid([]byte(text)) || !utf8.ValidString(text) {
			t.Errorf("%s: %s is not JSON", name, text)
		}
		got, err := parseMetadata(text)
		if err != nil || !maps.Equal(got, md) {
			t.Errorf("%s: %s became %q, %v", name, text, got, err)
		}
	}
}

func TestMetadataOfOthers(t *testing.T) {
	t.Parallel()
	got, err := parseMetadata(" {\"a\" : \"\\u00e4\\n\\/\\ud83d\\ude00\",\n\"b\":\"\"} ")
	if want := map[string]string{"a": "ä\n/😀", "b": ""}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for _, text := range []string{
		"", "null", "[]", "{", `{"a"`, `{"a":`, `{"a":1}`, `{"a":"b"`, `{"a":"b",}x`, `{"a":"b"}x`, `{"a":"\x"}`, `{"a":"\u12"}`,
		`{"a":"\`, `{"a":"\ud800"}`, `{"a":"\ud800\u0041"}`, `{"a":"b""c":"d"}`, `{,"a":"b"}`,
	} {
		if got, err := parseMetadata(text); err == nil {
			t.Errorf("%q is read as %q", text, got)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add("key", "value", `{"a":"b"}`)
	f.Add("\xff", "\x00\"\\", "{\"a\":\"\\udc80\\ud83d\\ude00\"}")
	f.Fuzz(func(t *testing.T, key, value, text string) {
		md := map[string]string{key: value, "second": key}
		got, err := parseMetadata(formatMetadata(md))
		if err != nil || !maps.Equal(got, md) {
			t.Errorf("%q became %q, %v", md, got, err)
		}
		read, err := parseMetadata(text)
		if err != nil {
			return
		}
		again, err := parseMetadata(formatMetadata(read))
		if err != nil || !maps.Equal(again, read) {
			t.Errorf("%q is read as %q and then as %q, %v", text, read, again, err)
		}
	})
}

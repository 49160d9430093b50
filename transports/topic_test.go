package transports_test

import (
	"strings"
	"testing"

	"github.com/gotidings/tidings/transports"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, topic string
		want           bool
	}{
		{"order.created", "order.created", true},
		{"order.created", "order.created.twice", false},
		{"order.created", "Order.created", false},
		{"order.*", "order.created", true},
		{"order.*", "order", false},
		{"order.*", "order.item.added", false},
		{"*.created", "order.created", true},
		{"*", "order", true},
		{"*", "order.created", false},
		{"*.*", "order", false},
		{"#", "", true},
		{"#", "a.b.c", true},
		{"order.#", "order", true},
		{"order.#", "order.item.added", true},
		{"order.#", "orders", false},
		{"#.added", "added", true},
		{"#.added", "order.item.added", true},
		{"#.added", "order.added.item", false},
		{"a.#.b", "a.b", true},
		{"a.#.b", "a.b.b", true},
		{"a.#.b", "a.b.c", false},
		{"a.#.b.#.c", "a.x.b.y.b.c", true},
		{"a.#.b.*", "a.b.c.b.d", true},
		{"#.*", "a", true},
		{"#.*.#", "", true}, // one word, the empty one
		{"#.#", "", true},
		{"*.#.*", "a", false},
		{"*.#.*", "a.b", true},
		{"a..b", "a..b", true},
		{"a.*.b", "a..b", true},
		{"a.*", "a.", true},
		{"or*er", "order", false}, // a wildcard is a word of its own
		{"order*", "order*", true},
		{"*.b", "*.b", true},
	} {
		if got := transports.Match(c.pattern, c.topic); got != c.want {
			t.Errorf("Match(%q, %q) is %t", c.pattern, c.topic, got)
		}
	}
}

// Where one # took words too few for the rest, all of them would have to be
// tried together if the last alone did not do. This must not take for ever.
func TestMatchOfManyWildcardsIsQuick(t *testing.T) {
	t.Parallel()
	pattern := strings.Repeat("#.a.", 500) + "b"
	topic := strings.Repeat("a.", 2000) + "c"
	if transports.Match(pattern, topic) {
		t.Error("matches")
	}
	if !transports.Match(pattern, topic[:len(topic)-1]+"b") {
		t.Error("does not match")
	}
}

// matchByDefinition tries every way to share the topic's words out.
func matchByDefinition(pattern, topic []string) bool {
	switch {
	case len(pattern) == 0:
		return len(topic) == 0
	case pattern[0] == "#":
		return matchByDefinition(pattern[1:], topic) || len(topic) > 0 && matchByDefinition(pattern, topic[1:])
	default:
		return len(topic) > 0 && (pattern[0] == "*" || pattern[0] == topic[0]) && matchByDefinition(pattern[1:], topic[1:])
	}
}

func FuzzMatch(f *testing.F) {
	for _, pattern := range []string{"", "a", "*", "#", "a.*", "a.#", "#.a", "a.#.b", "a.#.*.b.#", "#.#", "*.#.*", "a*", "..", "a.#.b.#.c"} {
		for _, topic := range []string{"", "a", "a.b", "a.b.c", "a.a.b.b", "a.b.b.c.c", "#", "a.*", ".", "ä.b\n"} {
			f.Add(pattern, topic)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, topic string) {
		if strings.Count(pattern, "#") > 5 || len(topic) > 100 {
			t.Skip("too many ways")
		}
		if got, want := transports.Match(pattern, topic), matchByDefinition(strings.Split(pattern, "."), strings.Split(topic, ".")); got != want {
			t.Errorf("Match(%q, %q) is %t", pattern, topic, got)
		}
		if !transports.Match(pattern, pattern) {
			t.Errorf("%q does not match itself", pattern)
		}
		if !transports.HasWildcard(pattern) && transports.Match(pattern, topic) != (pattern == topic) {
			t.Errorf("%q has no wildcard and matches %q", pattern, topic)
		}
	})
}

func TestHasWildcard(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]bool{
		"*": true, "#": true, "a.*": true, "*.a": true, "a.#.b": true,
		"": false, "a": false, "a.b": false, "a*": false, "#a.b": false, "a.**": false,
	} {
		if got := transports.HasWildcard(pattern); got != want {
			t.Errorf("HasWildcard(%q) is %t", pattern, got)
		}
	}
}

func TestValidateTopicAndPattern(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		topic              string
		asTopic, asPattern string // what the error says; "" for none
	}{
		{"order.created", "", ""},
		{"größe.鍵", "", ""},
		{"a b", "", ""},
		{"*", "", ""},
		{"order.#", "", ""},
		{"order.cr*", "", `the wildcard in "cr*"`},
		{"##", "", `the wildcard in "##"`},
		{"", "is empty", "is empty"},
		{"a\nb", "control character at byte 1", "control character at byte 1"},
		{"ä\x7f", "control character at byte 2", "control character at byte 2"},
		{"a\u0085", "control character at byte 1", "control character at byte 1"},
		{"a\xff", "not valid UTF-8", "not valid UTF-8"},
	} {
		check := func(what string, err error, want string) {
			t.Helper()
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s %q: got %v; want %q", what, c.topic, err, want)
			}
		}
		check("topic", transports.ValidateTopic(c.topic), c.asTopic)
		check("pattern", transports.ValidatePattern(c.topic), c.asPattern)
	}
}

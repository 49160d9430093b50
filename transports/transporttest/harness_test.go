package transporttest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/memory"
)

func TestFeaturesMustAgreeWithTheTransport(t *testing.T) {
	t.Parallel()
	tr, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tr.Close() }()
	bounded := func(*testing.T, int) transports.Transport { return nil }
	for name, c := range map[string]struct {
		lacks Features
		h     Harness
		tr    transports.Transport
		want  []string // one line each
	}{
		"right": {
			lacks: Features{Lacks: map[Feature]string{Reconnect: "no connection", Patterns: "no patterns"}},
			h:     Harness{OpenBounded: bounded}, tr: tr,
		},
		"without a reason": {
			lacks: Features{Lacks: map[Feature]string{Reconnect: ""}},
			h:     Harness{OpenBounded: bounded}, tr: tr,
			want: []string{`"reconnect" is declared to be lacking, without a reason`},
		},
		"lacking though there": {
			lacks: Features{Lacks: map[Feature]string{Reconnect: "x", Depth: "x", BackPressure: "x"}},
			h:     Harness{OpenBounded: bounded}, tr: tr,
			want: []string{`"back-pressure" is declared to be lacking, and is there`, `"depth" is declared`},
		},
		"missing": {
			lacks: Features{Lacks: map[Feature]string{Requeue: "x", Removal: "x", Ping: "x", Depth: "x", BatchPublish: "x"}},
			tr:    struct{ transports.Transport }{tr},
			want:  []string{`"back-pressure" is missing`, `"reconnect" is missing`, `"poison queue" is missing`},
		},
		"unknown": {
			lacks: Features{Lacks: map[Feature]string{Reconnect: "x", "magic": "x"}},
			h:     Harness{OpenBounded: bounded}, tr: tr,
			want: []string{`"magic" is no feature`},
		},
	} {
		var got []string
		if err := c.lacks.check(c.h, c.tr); err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		ok := len(got) == len(c.want)
		for i := 0; ok && i < len(got); i++ {
			ok = strings.Contains(got[i], c.want[i])
		}
		if !ok {
			t.Errorf("%s: got %q; want %q", name, got, c.want)
		}
	}
}

func TestEveryTestHasItsOwnNameAndKnownNeeds(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	needed := map[Feature]bool{}
	for _, test := range allTests {
		if seen[test.name] {
			t.Errorf("%q is there twice", test.name)
		}
		seen[test.name] = true
		for _, need := range test.needs {
			needed[need] = true
		}
	}
	for _, feature := range allFeatures {
		if !needed[feature] {
			t.Errorf("no test needs %q", feature)
		}
		delete(needed, feature)
	}
	if len(needed) > 0 {
		t.Errorf("missing in allFeatures: %v", needed)
	}
}

// passing are the results of a run in which everything passed that had to.
func passing(lacks map[Feature]string) Results {
	r := Results{features: Features{Lacks: lacks}, passed: make(map[string]bool)}
	for _, test := range allTests {
		if missing, _ := r.features.lacks(test.needs); missing == "" {
			r.passed[test.name] = true
		}
	}
	return r
}

func TestGuaranteesAreWrittenFromWhatPassed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "guarantees.md")
	if err := os.WriteFile(file, []byte("# Title\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		t.Helper()
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	one, two := passing(map[Feature]string{Patterns: "exact | only"}), passing(nil)
	one.CheckGuarantees(t, file, "one", true)
	two.CheckGuarantees(t, file, "two", true)
	first := read()
	one.CheckGuarantees(t, file, "one", false)
	two.CheckGuarantees(t, file, "two", true)
	if again := read(); again != first {
		t.Errorf("writing again changed it:\n%s\nbefore:\n%s", again, first)
	}
	for text, count := range map[string]int{
		"# Title\n": 1, "## one\n": 1, "## two\n": 1, "<!-- begin one -->\n": 1, "<!-- end two -->\n": 1,
		"| topic patterns | **no**: exact \\| only |\n": 1, "| topic patterns | yes |\n": 1,
		"  - topic patterns match words\n": 1, "  - ping answers while the transport can be used\n": 2,
	} {
		if got := strings.Count(first, text); got != count {
			t.Errorf("%q is there %d times; want %d in:\n%s", text, got, count, first)
		}
	}

	incomplete := passing(nil)
	delete(incomplete.passed, allTests[0].name)
	incomplete.CheckGuarantees(t, file, "one", true)
	if read() != first {
		t.Error("an incomplete run has changed it")
	}
}

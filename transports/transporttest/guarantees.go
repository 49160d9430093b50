package transporttest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// Results are what a run of the suite found.
type Results struct {
	features Features
	passed   map[string]bool // by name; without the skipped ones
}

// complete reports whether every test passed that had to. A run that was narrowed
// by -run, or that failed, is no base for a guarantee.
func (r Results) complete() bool {
	return !slices.ContainsFunc(allTests, func(test test) bool {
		missing, _ := r.features.lacks(test.needs)
		return missing == "" && !r.passed[test.name]
	})
}

// CheckGuarantees compares what passed with the transport's section in a Markdown
// file, and fails t when it differs. With update it writes the section instead, at
// the end of the file when there is none. After an incomplete run it does neither.
func (r Results) CheckGuarantees(t *testing.T, file, transport string, update bool) {
	t.Helper()
	if !r.complete() {
		t.Logf("%s is not compared: not everything ran and passed", file)
		return
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("guarantees: %v", err)
	}
	old := string(content)
	current := replaceSection(old, transport, r.table())
	switch {
	case current == old:
	case !update:
		t.Errorf("%s is out of date; run this test with -update", file)
	default:
		if err := os.WriteFile(file, []byte(current), 0o644); err != nil { //nolint:gosec // documentation is for everybody
			t.Fatalf("guarantees: %v", err)
		}
	}
}

// replaceSection puts body between the marks of a section.
func replaceSection(text, name, body string) string {
	begin, end := fmt.Sprintf("<!-- begin %s -->\n", name), fmt.Sprintf("<!-- end %s -->\n", name)
	before, rest, found := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		before, after = strings.TrimRight(text, "\n")+"\n\n## "+name+"\n\n", ""
	}
	return before + begin + body + end + after
}

// table says which features the transport has, and lists the tests that showed it.
func (r Results) table() string {
	var features, tests strings.Builder
	list := func(title string, names []string) {
		fmt.Fprintf(&tests, "- %s\n", title)
		for _, name := range names {
			fmt.Fprintf(&tests, "  - %s\n", name)
		}
	}
	list("what every transport does", r.behaviours(""))
	features.WriteString("| Feature | |\n|---|---|\n")
	for _, feature := range allFeatures {
		verdict := "yes"
		names := r.behaviours(feature)
		switch why, lacking := r.features.Lacks[feature]; {
		case lacking:
			verdict = "**no**: " + strings.ReplaceAll(why, "|", `\|`)
		case len(names) == 0: // its tests need something else that is lacking
			verdict = "not tested"
		default:
			list(string(feature), names)
		}
		fmt.Fprintf(&features, "| %s | %s |\n", feature, verdict)
	}
	return features.String() + "\nTests that passed:\n\n" + tests.String()
}

// behaviours returns the names of the tests that passed for a feature, or for
// none. Each test is listed once, under the first feature that it needs.
func (r Results) behaviours(feature Feature) []string {
	var names []string
	for _, test := range allTests {
		var first Feature
		if len(test.needs) > 0 {
			first = test.needs[0]
		}
		if first == feature && r.passed[test.name] {
			names = append(names, test.name)
		}
	}
	return names
}

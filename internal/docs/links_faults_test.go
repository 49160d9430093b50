package docs

import (
	"strings"
	"testing"
	"testing/fstest"
)

// A repository in which everything is right, and what each change makes wrong.
func TestCheckLinks(t *testing.T) {
	t.Parallel()
	right := map[string]string{
		"README.md":                 "[guide](docs/README.md), [code](bus/bus.go), [site](https://example.com/x#y), `[no](link)`\n\n'''\n[nor](this)\n'''\n",
		"bus/bus.go":                "package bus\n",
		"docs/README.md":            "# Guide\n\n- [one](one.md#a-b_c--d)\n- [t](transports/memory.md \"title\")\n- [here](#guide)\n[ref]: guarantees.md\n",
		"docs/one.md":               "## A `b_c` & d\n## A `b_c` & d\n[second](#a-b_c--d-1), [folder](../bus)\n",
		"docs/guarantees.md":        "## memory\n",
		"docs/transports/memory.md": "[what it guarantees](../guarantees.md#memory)\n",
		".git/x.md":                 "[broken](nowhere)\n",
	}
	for name, tt := range map[string]struct {
		file, content string
		want          string // the only fault; empty: none
	}{
		"nothing":                 {"CHANGELOG.md", "", ""},
		"no such file":            {"CHANGELOG.md", "\n[x](docs/two.md)", "CHANGELOG.md:2: docs/two.md: there is no docs/two.md"},
		"no such file, by name":   {"CHANGELOG.md", "[x]: two.md", "CHANGELOG.md:1: two.md: there is no two.md"},
		"no such heading":         {"CHANGELOG.md", "[x](docs/one.md#e)", "CHANGELOG.md:1: docs/one.md#e: docs/one.md has no heading #e"},
		"no such heading here":    {"CHANGELOG.md", "# a\n[x](#b)", "CHANGELOG.md:2: #b: CHANGELOG.md has no heading #b"},
		"no third heading":        {"CHANGELOG.md", "[x](docs/one.md#a-b_c--d-2)", "CHANGELOG.md:1: docs/one.md#a-b_c--d-2: docs/one.md has no heading #a-b_c--d-2"},
		"a line of code":          {"CHANGELOG.md", "[x](bus/bus.go#L1)", "CHANGELOG.md:1: bus/bus.go#L1: bus/bus.go has no heading #L1"},
		"out of the repository":   {"docs/one.md", "## A `b_c` & d\n[x](../../y)", "docs/one.md:2: ../../y leads out of the repository"},
		"relative to the page":    {"docs/one.md", "## A `b_c` & d\n[x](bus/bus.go)", "docs/one.md:2: bus/bus.go: there is no docs/bus/bus.go"},
		"a page without a link":   {"docs/two.md", "", "docs/two.md can't be reached from docs/README.md"},
		"an index without a link": {"README.md", "", "README.md does not link to docs/README.md"},
		"no guarantees":           {"docs/transports/memory.md", "[x](../guarantees.md)", "docs/transports/memory.md does not link to its guarantees, ../guarantees.md#…"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repository := fstest.MapFS{}
			for file, content := range right {
				repository[file] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(content, "'''", "```"))}
			}
			repository[tt.file] = &fstest.MapFile{Data: []byte(tt.content)}
			faults := checkLinks(repository)
			switch {
			case tt.want == "" && len(faults) > 0:
				t.Errorf("faults: %v", faults)
			case tt.want != "" && (len(faults) != 1 || faults[0].Error() != tt.want):
				t.Errorf("faults: %v\nwant: %s", faults, tt.want)
			}
		})
	}
}

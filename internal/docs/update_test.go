package docs

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "copy the code into README.md and docs anew")

// updateFile writes a Markdown file anew with its code as it is in the sources.
func updateFile(t *testing.T, name string, sources map[string]func() (string, error)) {
	t.Helper()
	path := filepath.Join(root, filepath.FromSlash(name))
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	updated := updated(string(content), sources)
	if updated == string(content) {
		return
	}
	if err := os.WriteFile(path, []byte(updated), 0o644); err != nil { //nolint:gosec // a file of the repository, for everybody
		t.Fatal(err)
	}
}

// updated returns a Markdown text with its Go blocks as their sources are. Blocks in lists and
// quotations, and those with a fault, are left alone.
func updated(markdown string, sources map[string]func() (string, error)) string {
	blocks, _ := goBlocks(markdown)
	lines := strings.SplitAfter(markdown, "\n")
	for _, b := range slices.Backward(blocks) { // so that line numbers stay right
		code, err := b.source(sources)
		first, n := b.line, strings.Count(b.code, "\n")
		if err != nil || strings.Join(lines[first:first+n], "") != b.code {
			continue
		}
		lines = append(lines[:first:first], append([]string{code}, lines[first+n:]...)...)
	}
	return strings.Join(lines, "")
}

func TestUpdated(t *testing.T) {
	t.Parallel()
	sources := map[string]func() (string, error){"cmd/main.go": func() (string, error) { return source, nil }}
	const before = "'''go\nx()\n'''\n<!-- file: cmd/main.go#bye -->\n'''go\nold()\nolder()\n'''\n> <!-- file: cmd/main.go#bye -->\n> '''go\n> old()\n> '''\n" +
		"<!-- file: cmd/main.go#bye -->\n'''go\n'''\n<!-- file: cmd/main.go#nope -->\n'''go\nold()\n'''\n"
	const after = "'''go\nx()\n'''\n<!-- file: cmd/main.go#bye -->\n'''go\nprintln(\"bye\")\n'''\n> <!-- file: cmd/main.go#bye -->\n> '''go\n> old()\n> '''\n" +
		"<!-- file: cmd/main.go#bye -->\n'''go\nprintln(\"bye\")\n'''\n<!-- file: cmd/main.go#nope -->\n'''go\nold()\n'''\n"
	fences := strings.NewReplacer("'''", "```")
	if got := updated(fences.Replace(before), sources); got != fences.Replace(after) {
		t.Errorf("updated:\n%s\nwant:\n%s", got, fences.Replace(after))
	}
}

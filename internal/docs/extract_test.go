package docs

import (
	"strings"
	"testing"
)

const source = `package main

func main() {
	// region hello
	if true {
		println("hello")

		println("world")
	}

	// endregion
	println("not shown")
	// region bye
	println("bye")
	// endregion
}
`

// The Markdown has ”' for its fences, so that they are easy to tell from Go's strings.
func TestCheckMarkdown(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		markdown string
		want     string // part of the only fault; empty: none
	}{
		"a region": {
			markdown: "text\n\n<!-- file: cmd/main.go#hello -->\n'''go\nif true {\n\tprintln(\"hello\")\n\n\tprintln(\"world\")\n}\n'''\n",
		},
		"a whole file": {
			markdown: "<!-- file: cmd/main.go -->\n\n'''go\n" + source + "'''\n",
		},
		"tildes and capitals": {
			markdown: "<!--file:cmd/main.go#bye-->\n~~~~ Go\nprintln(\"bye\")\n~~~~\n",
		},
		"in a list": {
			markdown: "1. first\n\n   <!-- file: cmd/main.go#bye -->\n   '''go\n   println(\"bye\")\n   '''\n",
		},
		"Windows line ends": {
			markdown: "<!-- file: cmd/main.go#bye -->\r\n'''go\r\nprintln(\"bye\")\r\n'''\r\n",
		},
		"other languages": {
			markdown: "'''sh\ngo test ./...\n'''\n\n'''\ngo vet\n'''\n\n'''gomod\nmodule x\n'''\n",
		},
		"a Go fence inside another block": {
			markdown: "''''markdown\n'''go\nx()\n'''\n''''\n",
		},
		"code that begins a line of text": {
			markdown: "'''go vet''' and\n'''go test''' are run\n",
		},
		"no marker": {
			markdown: "text\n'''go\nprintln(\"bye\")\n'''\n",
			want:     "2: a Go block without a line such as",
		},
		"no marker, in a quotation": {
			markdown: "> '''go\n> println(\"bye\")\n> '''\n",
			want:     "1: a Go block without",
		},
		"no marker, on a list item's line": {
			markdown: "- '''go\n  println(\"bye\")\n  '''\n",
			want:     "1: a Go block without",
		},
		"a marker serves one block": {
			markdown: "<!-- file: cmd/main.go#bye -->\n'''go\nprintln(\"bye\")\n'''\n'''go\nprintln(\"bye\")\n'''\n",
			want:     "5: a Go block without",
		},
		"text between marker and block": {
			markdown: "<!-- file: cmd/main.go#bye -->\ntext\n'''sh\n'''\n",
			want:     "1: no Go block follows the marker of cmd/main.go",
		},
		"a marker at the end": {
			markdown: "<!-- file: cmd/main.go#bye -->\n",
			want:     "1: no Go block follows",
		},
		"a changed line": {
			markdown: "<!-- file: cmd/main.go#hello -->\n'''go\nif true {\n\tprintln(\"hallo\")\n\n\tprintln(\"world\")\n}\n'''\n",
			want:     "4: differs from cmd/main.go",
		},
		"a line too few": {
			markdown: "<!-- file: cmd/main.go#hello -->\n'''go\nif true {\n'''\n",
			want:     "4: differs from",
		},
		"a line too many": {
			markdown: "<!-- file: cmd/main.go#bye -->\n'''go\nprintln(\"bye\")\nprintln(\"again\")\n'''\n",
			want:     "4: differs from",
		},
		"indentation that the copy should not have": {
			markdown: "<!-- file: cmd/main.go#bye -->\n'''go\n\tprintln(\"bye\")\n'''\n",
			want:     "3: differs from",
		},
		"a file that is not compiled": {
			markdown: "<!-- file: testdata/main.go -->\n'''go\nx()\n'''\n",
			want:     "2: testdata/main.go is not a file of a package that is compiled",
		},
		"an unknown region": {
			markdown: "<!-- file: cmd/main.go#nope -->\n'''go\nx()\n'''\n",
			want:     "2: cmd/main.go: there is no region nope",
		},
		"an open fence": {
			markdown: "<!-- file: cmd/main.go#bye -->\n'''sh\nprintln(\"bye\")\n",
			want:     "2: the block is not closed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sources := map[string]func() (string, error){
				"cmd/main.go": func() (string, error) { return source, nil },
			}
			blocks, faults := goBlocks(strings.ReplaceAll(tt.markdown, "'", "`"))
			for _, b := range blocks {
				if err := b.check(sources); err != nil {
					faults = append(faults, err)
				}
			}
			switch {
			case tt.want == "" && len(faults) > 0:
				t.Errorf("faults: %v", faults)
			case tt.want != "" && len(faults) == 0:
				t.Errorf("no fault, want %q", tt.want)
			case tt.want != "" && !strings.HasPrefix(faults[0].Error(), tt.want):
				t.Errorf("fault: %v\nwant: %s", faults[0], tt.want)
			}
		})
	}
}

func TestRegionFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ source, want string }{
		"twice":            {"// region a\nx\n// endregion\n// region a\n// endregion\n", "line 4: there are two regions a"},
		"nested":           {"// region a\n// region b\n// endregion\n// endregion\n", "line 2: region b begins inside region a"},
		"not closed":       {"// region a\nx\n", "region a has no endregion"},
		"not opened":       {"x\n// endregion\n", "line 2: endregion without a region"},
		"only its comment": {"// region about a\n", "there is no region a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := region(tt.source, "a"); err == nil || err.Error() != tt.want {
				t.Errorf("region: %q, %v; want the error %q", got, err, tt.want)
			}
		})
	}
}

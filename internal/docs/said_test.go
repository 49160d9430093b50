package docs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the table of troubleshooting tells its reader to look for is what the library says.
func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	inCheckout(t)
	const file = "docs/operating.md"
	said, err := saidTexts(readPage(t, file), "Troubleshooting")
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	code, err := goSources(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range said {
		if !strings.Contains(code, s) {
			t.Errorf("%s: no Go file of the library says %q", file, s)
		}
	}
}

// The metrics and the flags that the pages name are there.
func TestMetricsAndFlags(t *testing.T) {
	t.Parallel()
	inCheckout(t)
	for _, tt := range []struct {
		page, dir string
		pattern   *regexp.Regexp // of what is looked for, as a string of Go
	}{
		{"docs/telemetry.md", "telemetry", regexp.MustCompile("`(tidings\\.[a-z_.]+)`")},
		{"docs/cli.md", "cmd/tidings", regexp.MustCompile(`--([a-z][a-z-]+)`)},
	} {
		t.Run(tt.page, func(t *testing.T) {
			t.Parallel()
			content := readPage(t, tt.page)
			sub, err := fs.Sub(os.DirFS(root), tt.dir)
			if err != nil {
				t.Fatal(err)
			}
			code, err := goSources(sub)
			if err != nil {
				t.Fatal(err)
			}
			found := tt.pattern.FindAllStringSubmatch(content, -1)
			if len(found) == 0 {
				t.Errorf("%s names nothing", tt.page)
			}
			for _, m := range found {
				if !strings.Contains(code, `"`+m[1]+`"`) {
					t.Errorf("%s: %s has no %s", tt.page, tt.dir, m[0])
				}
			}
		})
	}
}

var cellPattern = regexp.MustCompile(`^\|([^|]*)\|`)

// inCheckout skips a test where the repository is not all there, in the module cache.
func inCheckout(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, "go.work")); errors.Is(err, fs.ErrNotExist) {
		t.Skip("not in a checkout of the repository: there is no go.work")
	}
}

func readPage(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// saidTexts returns what the first column of the tables in a section writes as code.
func saidTexts(markdown, section string) (said []string, err error) {
	inside := false
	for _, text := range proseLines(markdown) {
		if m := headingPattern.FindStringSubmatch(text); m != nil {
			inside = m[1] == section
		}
		if m := cellPattern.FindStringSubmatch(text); inside && m != nil {
			for _, code := range codePattern.FindAllString(m[1], -1) {
				said = append(said, strings.Trim(code, "`"))
			}
		}
	}
	if len(said) == 0 {
		return nil, fmt.Errorf("there is no table in a section %s", section)
	}
	return said, nil
}

// goSources returns the Go files of a repository that are no tests, in one text.
func goSources(repository fs.FS) (string, error) {
	var all strings.Builder
	err := fs.WalkDir(repository, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		content, err := fs.ReadFile(repository, name)
		all.Write(content)
		return err
	})
	return all.String(), err
}

func TestSaidTexts(t *testing.T) {
	t.Parallel()
	const page = "# A\n| `no` | x |\n## Troubleshooting\n| you see | do |\n|---|---|\n| `a b` or `c` | `d` |\n## B\n| `no` | x |\n"
	said, err := saidTexts(page, "Troubleshooting")
	if err != nil || !slices.Equal(said, []string{"a b", "c"}) {
		t.Errorf("saidTexts: %q, %v", said, err)
	}
	if _, err := saidTexts(page, "Nowhere"); err == nil {
		t.Error("a section that is not there is no fault")
	}
}

package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var root = filepath.Join("..", "..")

func TestSnippets(t *testing.T) {
	t.Parallel()
	inCheckout(t)
	sources := compiledFiles(t)
	for _, name := range markdownFiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if *update {
				updateFile(t, name, sources)
			}
			content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
			if err != nil {
				t.Fatal(err)
			}
			blocks, faults := goBlocks(string(content))
			for _, b := range blocks {
				if err := b.check(sources); err != nil {
					faults = append(faults, err)
				}
			}
			for _, err := range faults {
				t.Errorf("%s:%v", name, err)
			}
			if name == "README.md" && len(blocks) == 0 {
				t.Error("README.md shows no Go code, or none that this test sees")
			}
		})
	}
}

// A block is a fenced block of Go code in a Markdown file.
type block struct {
	line   int    // of the opening fence
	file   string // slash-separated, relative to the repository
	region string // empty: the whole file
	code   string
}

// check compares b with its source. The sources are read by their slash-separated
// names; those that are not compiled are not there.
func (b block) check(sources map[string]func() (string, error)) error {
	want, err := b.source(sources)
	if err != nil || b.code == want {
		return err
	}
	got, wanted := strings.Split(b.code, "\n"), strings.Split(want, "\n")
	i := 0
	for i < len(got)-1 && i < len(wanted)-1 && got[i] == wanted[i] {
		i++
	}
	return fmt.Errorf("%d: differs from %s\n\there:  %q\n\tthere: %q", b.line+1+i, b.file, got[i], wanted[i])
}

// source returns what b is a copy of.
func (b block) source(sources map[string]func() (string, error)) (string, error) {
	if b.file == "" {
		return "", fmt.Errorf("%d: a Go block without a line such as <!-- file: examples/hello/main.go#publish --> above it", b.line)
	}
	read, ok := sources[b.file]
	if !ok {
		return "", fmt.Errorf("%d: %s is not a file of a package that is compiled", b.line, b.file)
	}
	content, err := read()
	if err == nil && b.region != "" {
		content, err = region(content, b.region)
	}
	if err != nil {
		return "", fmt.Errorf("%d: %s: %w", b.line, b.file, err)
	}
	return content, nil
}

var (
	// A fence may stand in a list or a quotation, behind what is matched first.
	fencePattern  = regexp.MustCompile("^([\\s>]*(?:[-*+]\\s+|\\d+[.)]\\s+)?)(`{3,}|~{3,})\\s*\\{?\\.?([\\w+-]*)[^`]*$")
	regionPattern = regexp.MustCompile(`^\s*// region (\S+)$`)
	markerPattern = regexp.MustCompile(`^[\s>]*<!--\s*file:\s*([^\s#]+)(?:#(\S+))?\s*-->\s*$`)
)

// goBlocks returns the Go blocks of a Markdown text, and what is wrong with the text
// itself, each fault beginning with its line number.
func goBlocks(markdown string) (blocks []block, faults []error) {
	lines := strings.Split(strings.ReplaceAll(markdown, "\r\n", "\n"), "\n")
	var marker block // the marker that waits for its block
	unused := func() {
		if marker.file != "" {
			faults = append(faults, fmt.Errorf("%d: no Go block follows the marker of %s", marker.line, marker.file))
		}
		marker = block{}
	}
	for i := 0; i < len(lines); i++ {
		if m := markerPattern.FindStringSubmatch(lines[i]); m != nil {
			unused()
			marker = block{line: i + 1, file: m[1], region: m[2]}
			continue
		}
		fence := fencePattern.FindStringSubmatch(lines[i])
		if fence == nil {
			if strings.TrimSpace(lines[i]) != "" {
				unused()
			}
			continue
		}
		prefix, mark, language := fence[1], fence[2], strings.ToLower(fence[3])
		start := i
		var code strings.Builder
		for i++; i < len(lines) && !closes(lines[i], mark); i++ {
			code.WriteString(withoutPrefix(lines[i], len(prefix)) + "\n")
		}
		if i == len(lines) {
			faults = append(faults, fmt.Errorf("%d: the block is not closed", start+1))
		}
		if language != "go" && language != "golang" {
			unused()
			continue
		}
		blocks = append(blocks, block{start + 1, marker.file, marker.region, code.String()})
		marker = block{}
	}
	unused()
	return blocks, faults
}

// closes reports whether line ends the block that mark opened: at least as many of the
// same character, and nothing else.
func closes(line, mark string) bool {
	line = strings.Trim(line, "> \t")
	return strings.HasPrefix(line, mark) && strings.Trim(line, mark[:1]) == ""
}

// withoutPrefix drops what a list or a quotation puts before a line: up to n blanks
// and > signs.
func withoutPrefix(line string, n int) string {
	for n > 0 && line != "" && strings.ContainsRune(" \t>", rune(line[0])) {
		line, n = line[1:], n-1
	}
	return line
}

// region returns what lies between "// region name" and "// endregion" in source.
func region(source, name string) (string, error) {
	var open string // the region that the line is in
	var lines []string
	found := false
	for i, line := range strings.Split(source, "\n") {
		if m := regionPattern.FindStringSubmatch(line); m != nil {
			if open != "" {
				return "", fmt.Errorf("line %d: region %s begins inside region %s", i+1, m[1], open)
			}
			open = m[1]
			if open == name && found {
				return "", fmt.Errorf("line %d: there are two regions %s", i+1, name)
			}
			found = found || open == name
			continue
		}
		if strings.TrimSpace(line) == "// endregion" {
			if open == "" {
				return "", fmt.Errorf("line %d: endregion without a region", i+1)
			}
			open = ""
			continue
		}
		if open == name {
			lines = append(lines, line)
		}
	}
	switch {
	case !found:
		return "", fmt.Errorf("there is no region %s", name)
	case open != "":
		return "", fmt.Errorf("region %s has no endregion", open)
	}
	indent := -1
	for _, line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		if tabs := len(line) - len(strings.TrimLeft(line, "\t")); indent < 0 || tabs < indent {
			indent = tabs
		}
	}
	for i, line := range lines {
		lines[i] = line[min(max(indent, 0), len(line)):]
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n") + "\n", nil
}

func markdownFiles(t *testing.T) []string {
	t.Helper()
	files := []string{"README.md"}
	for _, folder := range []string{"docs", "examples"} {
		err := fs.WalkDir(os.DirFS(root), folder, func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, ".md") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// compiledFiles returns a reader for each Go file that is part of a package of go.work,
// tests included, by its name relative to the repository.
func compiledFiles(t *testing.T) map[string]func() (string, error) {
	t.Helper()
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=Dir,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles", "work")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	files := map[string]func() (string, error){}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Dir                                          string
			GoFiles, CgoFiles, TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return files
		} else if err != nil {
			t.Fatalf("output of go list: %v", err)
		}
		for _, names := range [][]string{p.GoFiles, p.CgoFiles, p.TestGoFiles, p.XTestGoFiles} {
			for _, name := range names {
				path := filepath.Join(p.Dir, name)
				relative, err := filepath.Rel(top, path)
				if err != nil {
					t.Fatal(err)
				}
				files[filepath.ToSlash(relative)] = func() (string, error) {
					content, err := os.ReadFile(path)
					return strings.ReplaceAll(string(content), "\r\n", "\n"), err
				}
			}
		}
	}
}

package docs

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const index = "docs/README.md"

// Every link of a Markdown file leads to a file of the repository and, behind #, to a
// heading of it; every page is to be found from the index.
func TestLinks(t *testing.T) {
	t.Parallel()
	inCheckout(t)
	for _, err := range checkLinks(os.DirFS(root)) {
		t.Error(err)
	}
}

// checkLinks returns what is wrong with the links of the Markdown files of a repository.
func checkLinks(repository fs.FS) (faults []error) {
	pages := pageSet{}
	err := fs.WalkDir(repository, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, ".md") {
			return nil
		}
		content, err := fs.ReadFile(repository, name)
		pages[name] = parsePage(string(content))
		return err
	})
	if err != nil {
		return []error{err}
	}
	for _, name := range sortedNames(pages) {
		for _, l := range pages[name].links {
			if err := pages.resolve(repository, name, &l); err != nil {
				faults = append(faults, fmt.Errorf("%s:%d: %w", name, l.line, err))
			}
		}
	}
	return append(faults, pages.unreachable()...)
}

type pageSet map[string]*page

func sortedNames(pages pageSet) []string {
	var names []string
	for name := range pages {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// target returns the file and the heading that a link of a page leads to; ok is false for
// one to elsewhere.
func target(from, link string) (file, anchor string, ok bool) {
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "" || u.Host != "" {
		return "", "", false
	}
	if u.Path == "" {
		return from, u.Fragment, true
	}
	return path.Join(path.Dir(from), u.Path), u.Fragment, true
}

func (pages pageSet) resolve(repository fs.FS, from string, l *link) error {
	file, anchor, ok := target(from, l.to)
	if !ok {
		if _, err := url.Parse(l.to); err != nil {
			return fmt.Errorf("%s is no link", l.to)
		}
		return nil
	}
	if !fs.ValidPath(file) {
		return fmt.Errorf("%s leads out of the repository", l.to)
	}
	if _, err := fs.Stat(repository, file); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: there is no %s", l.to, file)
	} else if err != nil {
		return err
	}
	if anchor == "" {
		return nil
	}
	if p := pages[file]; p == nil || !slices.Contains(p.anchors, anchor) {
		return fmt.Errorf("%s: %s has no heading #%s", l.to, file, anchor)
	}
	return nil
}

// unreachable returns a fault for each page of docs that no chain of links leads to, from
// the README by way of the index.
func (pages pageSet) unreachable() (faults []error) {
	if pages[index] == nil || pages["README.md"] == nil {
		return []error{fmt.Errorf("README.md and %s have to be there", index)}
	}
	leadsTo := func(name string) (files []string) {
		for _, l := range pages[name].links {
			if file, _, ok := target(name, l.to); ok {
				files = append(files, file)
			}
		}
		return files
	}
	if !slices.Contains(leadsTo("README.md"), index) {
		faults = append(faults, fmt.Errorf("README.md does not link to %s", index))
	}
	found := map[string]bool{index: true}
	for todo := []string{index}; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		for _, next := range leadsTo(name) {
			if strings.HasPrefix(next, "docs/") && pages[next] != nil && !found[next] {
				found[next] = true
				todo = append(todo, next)
			}
		}
	}
	for _, name := range sortedNames(pages) {
		switch {
		case !strings.HasPrefix(name, "docs/"):
		case !found[name]:
			faults = append(faults, fmt.Errorf("%s can't be reached from %s", name, index))
		case strings.HasPrefix(name, "docs/transports/") && !slices.ContainsFunc(pages[name].links, func(l link) bool {
			file, anchor, _ := target(name, l.to)
			return file == "docs/guarantees.md" && anchor != ""
		}):
			faults = append(faults, fmt.Errorf("%s does not link to its guarantees, ../guarantees.md#…", name))
		}
	}
	return faults
}

type page struct {
	links   []link
	anchors []string
}

type link struct {
	line int
	to   string
}

var (
	linkPattern      = regexp.MustCompile(`\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)`)
	referencePattern = regexp.MustCompile(`^\s{0,3}\[[^\]]+\]:\s+<?([^\s>]+)`)
	headingPattern   = regexp.MustCompile(`^\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$`)
	codePattern      = regexp.MustCompile("`+[^`]*`+")
	linkTextPattern  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// parsePage finds the links and headings of a Markdown text, and passes over code.
func parsePage(markdown string) *page {
	p := &page{}
	taken := map[string]int{}
	for line, text := range proseLines(markdown) {
		if m := headingPattern.FindStringSubmatch(text); m != nil {
			s := slug(m[1])
			n := taken[s]
			taken[s]++
			if n > 0 {
				s = fmt.Sprintf("%s-%d", s, n)
			}
			p.anchors = append(p.anchors, s)
		}
		text = codePattern.ReplaceAllString(text, "")
		for _, m := range linkPattern.FindAllStringSubmatch(text, -1) {
			p.links = append(p.links, link{line, m[1]})
		}
		if m := referencePattern.FindStringSubmatch(text); m != nil {
			p.links = append(p.links, link{line, m[1]})
		}
	}
	return p
}

// proseLines yields the lines outside of fenced blocks, numbered from 1.
func proseLines(markdown string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		mark := ""
		for i, line := range strings.Split(strings.ReplaceAll(markdown, "\r\n", "\n"), "\n") {
			if mark != "" {
				if closes(line, mark) {
					mark = ""
				}
				continue
			}
			if fence := fencePattern.FindStringSubmatch(line); fence != nil {
				mark = fence[2]
				continue
			}
			if !yield(i+1, line) {
				return
			}
		}
	}
}

// slug is the anchor that GitHub gives a heading: its text in lower case, blanks as hyphens,
// without anything else that is no letter, digit, hyphen or underscore.
func slug(heading string) string {
	heading = linkTextPattern.ReplaceAllString(heading, "$1")
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

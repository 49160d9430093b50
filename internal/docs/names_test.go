package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// packages are those whose names the pages may write as code, by the name they write.
var packages = map[string]string{
	"bus": "bus", "bustest": "bus/bustest", "events": "events", "handlers": "handlers", "health": "health",
	"inbox": "inbox", "memory": "transports/memory", "middleware": "middleware", "outbox": "outbox",
	"pgnotify": "transports/sql/pgnotify", "rabbitmq": "transports/rabbitmq", "transports": "transports",
	"tsql": "transports/sql", "watermill": "transports/watermill",
}

// Names that README.md and docs write as code, such as `bus.RetryPolicy.Attempts`, are there.
func TestNames(t *testing.T) {
	t.Parallel()
	names, err := exportedNames(os.DirFS(root), packages)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, file := range markdownFiles(t) {
		content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		n, faults := checkNames(string(content), names)
		checked += n
		for _, err := range faults {
			t.Errorf("%s:%v", file, err)
		}
	}
	if checked == 0 {
		t.Error("no name was checked")
	}
}

// What the table of troubleshooting tells its reader to look for is what the library says.
func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	const file = "docs/operating.md"
	content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	said, err := saidTexts(string(content), "Troubleshooting")
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

var (
	namePattern = regexp.MustCompile(`\b([a-z]+)\.([A-Z]\w*)(?:\.([A-Z]\w*))?`)
	cellPattern = regexp.MustCompile(`^\|([^|]*)\|`)
)

// checkNames returns how many names of the packages a text writes as code, and a fault for
// each that is not exported by its package.
func checkNames(markdown string, exported map[string]map[string]bool) (n int, faults []error) {
	for line, text := range proseLines(markdown) {
		for _, code := range codePattern.FindAllString(text, -1) {
			for _, m := range namePattern.FindAllStringSubmatch(code, -1) {
				names, ok := exported[m[1]]
				if !ok {
					continue
				}
				n++
				name := m[2]
				if m[3] != "" {
					name += "." + m[3]
				}
				if !names[name] {
					faults = append(faults, fmt.Errorf("%d: package %s exports no %s", line, m[1], name))
				}
			}
		}
	}
	return n, faults
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

// exportedNames returns what each package exports: F, T, and T.M for methods and fields.
func exportedNames(repository fs.FS, packages map[string]string) (map[string]map[string]bool, error) {
	all := map[string]map[string]bool{}
	for written, dir := range packages {
		files, err := fs.ReadDir(repository, dir)
		if err != nil {
			return nil, err
		}
		names := map[string]bool{}
		for _, d := range files {
			if !strings.HasSuffix(d.Name(), ".go") || strings.HasSuffix(d.Name(), "_test.go") {
				continue
			}
			source, err := fs.ReadFile(repository, path.Join(dir, d.Name()))
			if err != nil {
				return nil, err
			}
			file, err := parser.ParseFile(token.NewFileSet(), d.Name(), source, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			for _, decl := range file.Decls {
				addNames(names, decl)
			}
		}
		all[written] = names
	}
	return all, nil
}

func addNames(names map[string]bool, decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		name := d.Name.Name
		if d.Recv != nil {
			name = typeName(d.Recv.List[0].Type) + "." + name
		}
		names[name] = true
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.ValueSpec:
				for _, n := range s.Names {
					names[n.Name] = true
				}
			case *ast.TypeSpec:
				names[s.Name.Name] = true
				for _, member := range members(s.Type) {
					names[s.Name.Name+"."+member] = true
				}
			}
		}
	}
}

// members returns the names of a struct's fields, or of an interface's methods.
func members(t ast.Expr) (names []string) {
	var fields *ast.FieldList
	switch t := t.(type) {
	case *ast.StructType:
		fields = t.Fields
	case *ast.InterfaceType:
		fields = t.Methods
	default:
		return nil
	}
	for _, f := range fields.List {
		for _, n := range f.Names {
			names = append(names, n.Name)
		}
	}
	return names
}

// typeName is the name of a receiver's type: of T, *T and T[P].
func typeName(t ast.Expr) string {
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func TestCheckNames(t *testing.T) {
	t.Parallel()
	names, err := exportedNames(os.DirFS(root), packages)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"`bus.Config.Retry` and `bus.Bus.Redrive` and `bus.Retry(bus.NoRetry())`": "",
		"`transports.Requeuer.Requeue`, `errors.Nope`, bus.Nope":                  "",
		"\n`bus.Nope`":               "2: package bus exports no Nope",
		"`bus.Config.Nope`":          "1: package bus exports no Config.Nope",
		"`bus.Retry(bus.NoRetri())`": "1: package bus exports no NoRetri",
		"`outbox.Relay.Redriven`":    "1: package outbox exports no Relay.Redriven",
	} {
		_, faults := checkNames(text, names)
		if want == "" && len(faults) > 0 || want != "" && (len(faults) != 1 || faults[0].Error() != want) {
			t.Errorf("%q: %v, want %q", text, faults, want)
		}
	}
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

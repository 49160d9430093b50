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
	"strings"
	"testing"
)

// aliases are what the pages write for packages whose own name is not theirs alone.
var aliases = map[string]string{"transports/sql": "tsql"}

// Names that README.md and docs write as code, such as `bus.RetryPolicy.Attempts`, are there.
func TestNames(t *testing.T) {
	t.Parallel()
	inCheckout(t)
	names, err := exportedNames(os.DirFS(root))
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

var namePattern = regexp.MustCompile(`\b([a-z]+)\.([A-Z]\w*)(?:\.([A-Z]\w*))?`)

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

// exportedNames returns what each package of a repository exports: F, T, and T.M for methods
// and fields. Programs, what is internal, and packages that share their names are left out.
func exportedNames(repository fs.FS) (map[string]map[string]bool, error) {
	all := map[string]map[string]bool{}
	owner := map[string]string{} // folder of a package's name; empty: it has several
	err := fs.WalkDir(repository, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "internal") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		source, err := fs.ReadFile(repository, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		for _, written := range []string{file.Name.Name, aliases[dir]} {
			if other, ok := owner[written]; ok && other != dir {
				owner[written] = ""
				delete(all, written)
				continue
			}
			owner[written] = dir
			if all[written] == nil {
				all[written] = map[string]bool{}
			}
			for _, decl := range file.Decls {
				addNames(all[written], decl)
			}
		}
		return nil
	})
	delete(all, "main")
	return all, err
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
	names, err := exportedNames(os.DirFS(root))
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

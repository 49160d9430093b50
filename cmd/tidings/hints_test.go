package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Commands and flags that messages, helps and examples name exist. Of a flag without a
// command it is only known here that some command has it; testOutcomes knows which.
func TestWhatMessagesNameExists(t *testing.T) {
	t.Parallel()
	root := (&app{}).root()
	all := append(leaves(root), root)
	seen := 0
	literals(t, func(text, at string) {
		for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ';' || r == '\n' }) {
			var on *cobra.Command
			if words := strings.Fields(hintedCommand.FindString(part)); len(words) > 0 {
				if on = findCommand(root, words[1:]); on == root && words[1] != "has" {
					t.Errorf("%s: there is no command %q", at, strings.Join(words, " "))
					continue
				}
			}
			for _, f := range hintedFlag.FindAllStringSubmatch(part, -1) {
				seen++
				switch {
				case on != nil && on != root && !on.HasSubCommands():
					if !hasFlag(on, f[1]) {
						t.Errorf("%s: %q has no --%s", at, on.CommandPath(), f[1])
					}
				case !slices.ContainsFunc(all, func(c *cobra.Command) bool { return hasFlag(c, f[1]) }):
					t.Errorf("%s: no command has --%s", at, f[1])
				}
			}
		}
	})
	if seen < 50 {
		t.Errorf("only %d flags are named: is the pattern right?", seen)
	}
}

// hasFlag reports whether a command has a flag, its own or one of all commands.
func hasFlag(cmd *cobra.Command, name string) bool {
	cmd.InitDefaultHelpFlag()
	return cmd.Flags().Lookup(name) != nil || cmd.InheritedFlags().Lookup(name) != nil || cmd.PersistentFlags().Lookup(name) != nil
}

// literals calls fn with the strings in the sources of this package and where they are.
func literals(t *testing.T, fn func(text, at string)) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(source, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				if text, err := strconv.Unquote(literal.Value); err == nil {
					fn(text, set.Position(literal.Pos()).String())
				}
			}
			return true
		})
	}
}

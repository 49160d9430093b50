package matrix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	repository = "../.."

	// parallel is how many tests of a suite run at once. They wait more than they compute.
	parallel = "4"
)

// binaries are the built programs of the suites, by name.
type binaries map[string]string

// build builds each program once.
func build(t *testing.T) binaries {
	t.Helper()
	var race []string
	if goCommand(t.Context(), "build", "-race", "runtime/cgo") == nil { // as scripts/test.sh
		race = []string{"-race"}
	}
	dir, built := t.TempDir(), make(binaries)
	for _, suites := range append(slices.Collect(maps.Values(onDatabase)), onNode, onCluster) {
		for _, s := range suites {
			if built[s.name] != "" {
				continue
			}
			path := filepath.Join(dir, strings.ReplaceAll(s.name, "/", "_"))
			args := []string{"test", "-c", "-o", path}
			if s.name == quickstart {
				args = []string{"build", "-o", path}
			}
			if err := goCommand(t.Context(), append(append(args, race...), "./"+s.name)...); err != nil {
				t.Fatal(err)
			}
			built[s.name] = path
		}
	}
	return built
}

func goCommand(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// run runs the program of a suite and returns what it printed.
func (b binaries) run(t *testing.T, s suite, urls, environment []string) ([]byte, error) {
	t.Helper()
	args := []string{
		"-test.count=1", "-test.shuffle=on", "-test.timeout=15m", "-test.run=" + s.tests, "-test.skip=" + s.without,
		"-test.parallel=" + parallel,
	}
	args = append(args, s.args...)
	if s.name == quickstart {
		args = []string{"-transport", urls[0]}
	}
	cmd := exec.CommandContext(t.Context(), b[s.name], args...)
	cmd.Dir = filepath.Join(repository, s.name) // as go test
	cmd.Env = environment
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
	case s.name == quickstart:
		last := out[bytes.LastIndexByte(bytes.TrimSpace(out), '\n')+1:]
		if fields := strings.Fields(string(last)); len(fields) == 0 || fields[len(fields)-1] != "lost=0" {
			err = errors.New("the last line does not end in lost=0")
		}
	case bytes.Contains(out, []byte("warning: no tests to run")):
		err = errors.New("no test has such a name")
	}
	return out, err
}

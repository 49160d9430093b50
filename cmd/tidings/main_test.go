package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// The program that the tests run is in PATH. It is built without the race detector, under
// which SQLite is many times slower; the tests' own half of it is not.
func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "tidings-cli-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	// With the ending of programs of this system, if they have one.
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), ".") //nolint:noctx // go test has a time-out
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}
	if err := os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH")); err != nil {
		return 1, err
	}
	code := m.Run()
	if code == 0 {
		err = goleak.Find()
	}
	return code, err
}

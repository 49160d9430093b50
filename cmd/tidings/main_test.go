package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// leakTested fails a run of tests that has left goroutines behind.
type leakTested struct{ *testing.M }

func (m leakTested) Run() int {
	code := m.M.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// In the tests the program is this binary under the name tidings, which is in PATH.
func TestMain(m *testing.M) {
	testscript.Main(leakTested{m}, map[string]func(){"tidings": main})
}

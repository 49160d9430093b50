package matrix

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

var run = flag.Bool("matrix", false, "run the suites on all versions")

// legs counts how the legs ended.
var legs struct{ planned, passed, failed int }

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		if *run {
			fmt.Printf("matrix: %d legs passed, %d failed, %d not run\n", legs.passed, legs.failed, legs.planned-legs.passed-legs.failed)
		}
		os.Exit(status)
	}))
}

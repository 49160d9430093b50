package testserver

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// missing ends a test that lacks what: skipped, or failed where a skip would hide that
// nothing was tested. Each of commands provides it.
func missing(tb testing.TB, what string, commands ...string) {
	tb.Helper()
	text := fmt.Sprintf("%s. Any of these provides it:\n\t%s", what, strings.Join(commands, "\n\t"))
	if os.Getenv("REQUIRE_SERVICES") == "1" {
		tb.Fatalf("%s\nREQUIRE_SERVICES=1 demands it.", text)
	}
	// go test shows the reason of a skip with -v only.
	fmt.Fprintf(os.Stderr, "SKIPPED %s: %s\n", tb.Name(), text)
	tb.Skip(text)
}

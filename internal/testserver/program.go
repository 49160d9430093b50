package testserver

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// program is one that tests run, and how to tell where it is.
type program struct {
	name     string
	variable string   // of the environment, with its path
	commands []string // that it may be called by
	provided string
}

var (
	chromium = program{"Chromium", "CHROMIUM", []string{"chromium", "chromium-browser", "google-chrome"}, "apt-get install chromium"}
	node     = program{"Node.js", "NODE", []string{"node", "nodejs"}, "apt-get install nodejs"}
)

// Chromium returns the path of a browser that runs without a screen: CHROMIUM, or the one
// that is installed.
func Chromium(tb testing.TB) string {
	tb.Helper()
	return chromium.find(tb)
}

// Node returns the path of Node.js: NODE, or the one that is installed.
func Node(tb testing.TB) string {
	tb.Helper()
	return node.find(tb)
}

func (p program) find(tb testing.TB) string {
	tb.Helper()
	commands := p.commands
	if named := os.Getenv(p.variable); named != "" {
		commands = []string{named}
	}
	for _, command := range commands {
		if path, err := exec.LookPath(command); err == nil {
			return path
		}
	}
	missing(tb, fmt.Sprintf("no %s (%s); %s can name another", p.name, strings.Join(commands, ", "), p.variable), p.provided)
	return ""
}

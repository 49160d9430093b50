package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// console writes the report to standard output and complaints to standard error, one
// writer at a time.
type console struct {
	mu     sync.Mutex // guards what follows
	out    io.Writer
	errout io.Writer
	bar    *progressbar.ProgressBar // nil when there is none
	bars   bool                     // out can show one
}

func newConsole(out, errout io.Writer) *console {
	c := &console{out: out, errout: errout}
	if f, ok := out.(*os.File); ok {
		c.bars = term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
	}
	return c
}

// print writes a part of the report.
func (c *console) print(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hideBar()
	fmt.Fprintf(c.out, format, args...)
}

// complain writes a line to standard error.
func (c *console) complain(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hideBar()
	fmt.Fprintln(c.errout, oneLine(fmt.Sprintf(format, args...), 500))
}

// hideBar makes room for a line; the bar comes back with its next change. Called with
// mu held.
func (c *console) hideBar() {
	if c.bar != nil {
		_ = c.bar.Clear() // nothing depends on it
	}
}

// showBar shows that done of all deliveries are at an end.
func (c *console) showBar(done, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if all == 0 || done >= all {
		return // a full bar would count as finished for good, and more may come
	}
	if c.bar == nil {
		c.bar = progressbar.NewOptions(all,
			progressbar.OptionSetWriter(c.out), progressbar.OptionSetDescription("deliveries"), progressbar.OptionSetWidth(40),
			progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(false), progressbar.OptionClearOnFinish())
	}
	if c.bar.GetMax() != all {
		c.bar.ChangeMax(all)
	}
	_ = c.bar.Set(done) // nothing depends on it
}

// endBar takes the bar away.
func (c *console) endBar() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hideBar()
	c.bar = nil
}

// oneLine makes text from outside fit to be shown: on one line, with nothing that a
// terminal would obey, and of at most limit characters.
func oneLine(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\ufffd'
	}, text)
	if runes := []rune(text); len(runes) > limit {
		text = string(runes[:limit]) + "…"
	}
	return text
}

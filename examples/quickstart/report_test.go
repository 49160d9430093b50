package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func TestSummaryLine(t *testing.T) {
	t.Parallel()
	got := summary{1, 2, 3, 4, 5, 6, 7, 8}.String()
	if want := "malformed=1 published=2 handled=3 retried=4 deduplicated=5 poisoned=6 unhandled=7 lost=8"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	got := table([]row{
		{name: "short", total: total{handled: 1, retried: 22, deduplicated: 333, poisoned: 4444}, perSecond: 12.9, p50: 1234567, p99: 1234567890},
		{name: "a-name-that-is-longer"},
		{name: "audit", audit: true, total: total{handled: 100_000}, perSecond: 1e6, p50: time.Microsecond, p99: time.Minute},
	})
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	width := utf8.RuneCountInString(lines[0])
	for _, l := range lines {
		if utf8.RuneCountInString(l) != width {
			t.Errorf("lines of different lengths:\n%s", got)
			break
		}
	}
	for _, part := range []string{"  short  ", "  1.235ms  1.23s", "  a-name-that-is-longer        0 ", "  audit (#) ", " 4444 ", " 12 "} {
		if !strings.Contains(got, part) {
			t.Errorf("no %q in\n%s", part, got)
		}
	}
}

func TestPoisonReport(t *testing.T) {
	t.Parallel()
	if got := poisonReport([]row{{name: "a"}}); got != "" {
		t.Errorf("a report on nothing: %q", got)
	}
	got := poisonReport([]row{
		{name: "a", reasons: []poisonReason{{"r1", 9}, {"r2", 8}, {"r3", 7}, {"r4", 6}, {"r5", 5}, {"r6", 4}, {"r7", 3}}},
		{name: "b"},
	})
	const want = "poisoned, and why:\n  a: 9 × r1\n  a: 8 × r2\n  a: 7 × r3\n  a: 6 × r4\n  a: 5 × r5\n  a: 7 × other reasons\n\n"
	if got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"plain, and ünïcode", "plain, and ünïcode"},
		{"a\nb\x1b[31m\u202e", "a\ufffdb\ufffd[31m\ufffd"},
		{strings.Repeat("é", 21), strings.Repeat("é", 20) + "…"},
	} {
		if got := oneLine(tt.text, 20); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestProgressLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		b := newBook(t)
		stop := newConsole(&out, nil).showProgress(b.ledger, 10)
		b.publish("1", "y")
		b.handle("c", "1")
		time.Sleep(5*lineInterval + lineInterval/2) // one line: nothing moves after it
		b.handle("audit", "1")
		time.Sleep(lineInterval)
		stop()
		const want = "  1 events published, 1 of 10 deliveries at an end\n  1 events published, 2 of 10 deliveries at an end\n"
		if out.String() != want {
			t.Errorf("%q\nwant %q", out.String(), want)
		}
	})
}

// The bar gives way to lines, and comes back.
func TestProgressBar(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := newConsole(&out, &out) // both are the terminal
		c.bars = true
		b := newBook(t)
		stop := c.showProgress(b.ledger, 0)
		time.Sleep(barInterval * 2) // nothing to show yet
		b.publish("1", "y")
		b.handle("c", "1")
		time.Sleep(barInterval * 2)
		c.complain("line %d: bad", 1)
		b.publish("2", "y")
		b.handle("c", "2")
		time.Sleep(barInterval * 2)
		b.handle("audit", "1")
		b.handle("audit", "2") // all at an end for now
		time.Sleep(barInterval * 2)
		b.publish("3", "y")
		time.Sleep(barInterval * 2)
		stop()
		for _, part := range []string{"(1/2)", "(2/4)", "(4/6)"} {
			if !strings.Contains(out.String(), part) {
				t.Errorf("the bar never shows %s: %q", part, out.String())
			}
		}
		if !strings.Contains(out.String(), "\rline 1: bad\n") {
			t.Errorf("the complaint is not on a line of its own: %q", out.String())
		}
		if last := out.String(); !strings.HasSuffix(last, "\r") {
			t.Errorf("the bar is still there: %q", last[max(0, len(last)-40):])
		}
	})
}

func TestConsoleIsSafe(t *testing.T) {
	t.Parallel()
	var out, errout bytes.Buffer
	c := newConsole(&out, &errout)
	c.bars = true
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for j := range 50 {
				c.showBar(i+j, 100)
				c.complain("line %d", j)
				c.print("text\n")
			}
			c.endBar()
		})
	}
	writers.Wait()
	if n := strings.Count(errout.String(), "\n"); n != 200 {
		t.Errorf("%d complaints, want 200", n)
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outcome is what a run of the program left behind.
type outcome struct {
	code           int
	stdout, stderr string
}

func (o outcome) last() string {
	lines := strings.Split(strings.TrimSuffix(o.stdout, "\n"), "\n")
	return lines[len(lines)-1]
}

// program runs the whole program in virtual time: waits for redeliveries take none.
func program(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	var o outcome
	synctest.Test(t, func(t *testing.T) {
		var stdout, stderr bytes.Buffer
		o.code = run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
		o.stdout, o.stderr = stdout.String(), stderr.String()
	})
	return o
}

// event is a line of input; a value of nil leaves a member out.
func event(t *testing.T, id, eventType string, members map[string]any) string {
	t.Helper()
	e := map[string]any{"specversion": "1.0", "id": id, "source": "/test", "type": eventType}
	maps.Copy(e, members)
	for name, value := range e {
		if value == nil {
			delete(e, name)
		}
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func customer(id int) map[string]any {
	return map[string]any{"data": map[string]any{"customerId": id, "customerName": "Ada", "email": "ada@example.com"}}
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-bogus"},
		{"events.jsonl"},
		{"-input"},
		{"-input="},
		{"-input", filepath.Join(t.TempDir(), "missing")},
		{"-input", t.TempDir()},
		{"-transport", "nowhere://"},
		{"-transport", "memory"},
		{"-transport", "://"},
		{"-transport", "memory://host"},
		{"-transport", "memory://?queue_size=none"},
		{"-transport="},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			o := program(t, "", args...)
			if o.code != exitUsage || o.stdout != "" || !strings.HasPrefix(o.stderr, "quickstart: ") || strings.Count(o.stderr, "\n") != 1 {
				t.Errorf("status %d, want %d; stdout %q; stderr %q, want one line", o.code, exitUsage, o.stdout, o.stderr)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	o := program(t, "", "-help")
	if o.code != 0 || o.stderr != "" || !strings.Contains(o.stdout, "-input") || !strings.Contains(o.stdout, "-transport") {
		t.Errorf("status %d, stdout %q, stderr %q", o.code, o.stdout, o.stderr)
	}
}

// The line that is wanted is counted from the plan of the sample.
func TestDefaultRun(t *testing.T) {
	t.Parallel()
	want := countSample(t, newSample()).String()
	o := program(t, "")
	if o.code != 0 || o.stderr != "" {
		t.Errorf("status %d, stderr %q", o.code, o.stderr)
	}
	if o.last() != want {
		t.Errorf("last line %q\nwant      %q", o.last(), want)
	}
	for _, part := range []string{
		"send-welcome-email", "record-analytics", "p99", "events/s",
		"70 × mail server: rejects mail for example.net", "50 × stock: the warehouse is shut",
		"redriven: 165, mended by now; of these handled: 165, poisoned again: 0, lost: 0",
	} {
		if !strings.Contains(o.stdout, part) {
			t.Errorf("the report has no %q:\n%s", part, o.stdout)
		}
	}
	if audit := regexp.MustCompile(`audit \(#\)\s+11320\s+0\s+0\s+0 `); !audit.MatchString(o.stdout) {
		t.Errorf("the audit has not seen every copy of every event:\n%s", o.stdout)
	}
	if strings.ContainsAny(o.stdout, "\x1b\r") {
		t.Error("the report has control codes, and is not on a terminal")
	}
}

func TestInput(t *testing.T) {
	t.Parallel()
	good := event(t, "1", "customer.created", customer(1))
	lines := []string{
		good,
		"",         // 2: malformed
		"not JSON", // 3: malformed
		event(t, "2", "something.else", customer(1)), // unhandled
		good,                                           // a copy
		event(t, "3", "customer.created", nil),         // poisoned: no data
		event(t, "4", "document.processed", nil),       // poisoned twice
		event(t, "", "customer.created", customer(2)),  // 8: malformed
		event(t, "1", "something.else", nil),           // unhandled: no copy, its type is another
		event(t, "5", "customer.created", customer(3)), // good
	}
	const want = "malformed=3 published=7 handled=2 retried=0 deduplicated=1 poisoned=3 unhandled=2 lost=0"
	check := func(t *testing.T, o outcome) {
		t.Helper()
		if o.code != 0 || o.last() != want {
			t.Errorf("status %d, last line %q\nwant 0, %q", o.code, o.last(), want)
		}
		var numbers []string
		for l := range strings.Lines(o.stderr) {
			number, _, _ := strings.Cut(l, ":")
			numbers = append(numbers, number)
		}
		if got := strings.Join(numbers, ","); got != "line 2,line 3,line 8" {
			t.Errorf("complaints about %s:\n%s", got, o.stderr)
		}
		if !strings.Contains(o.stdout, "redriven: 0") {
			t.Errorf("something was redriven, and nothing was mended:\n%s", o.stdout)
		}
	}
	file := func(t *testing.T, text string) string {
		t.Helper()
		name := filepath.Join(t.TempDir(), "events.jsonl")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		name := file(t, strings.Join(lines, "\n")+"\n")
		check(t, program(t, "", "-input", name))
		check(t, program(t, "", "-input", name)) // again, the same
	})
	t.Run("standard input", func(t *testing.T) {
		t.Parallel()
		check(t, program(t, strings.Join(lines, "\n"), "-input", "-"))
	})
	t.Run("DOS line breaks and a byte order mark", func(t *testing.T) {
		t.Parallel()
		check(t, program(t, "\ufeff"+strings.Join(lines, "\r\n")+"\r\n", "-input", "-"))
	})
	t.Run("empty", func(t *testing.T) {
		t.Parallel()
		o := program(t, "", "-input", file(t, ""))
		if zeros := (summary{}).String(); o.code != 0 || o.last() != zeros || o.stderr != "" {
			t.Errorf("status %d, last line %q, stderr %q", o.code, o.last(), o.stderr)
		}
	})
}

// The injected faults are the sample's: an event of somebody else's that has the id of
// one of them does not fail.
func TestInputInjectsNothing(t *testing.T) {
	t.Parallel()
	s := newSample()
	var lines []string
	for id := range s.faults {
		if strings.HasPrefix(id, "customer.created") {
			lines = append(lines, event(t, id, "customer.created", customer(1)))
		}
	}
	o := program(t, strings.Join(lines, "\n"), "-input", "-")
	want := summary{published: len(lines), handled: len(lines)}.String()
	if o.code != 0 || o.last() != want {
		t.Errorf("status %d, last line %q\nwant 0, %q", o.code, o.last(), want)
	}
}

func TestTooLargeIsRefusedAndNotMalformed(t *testing.T) {
	t.Parallel()
	big := event(t, "2", "big", map[string]any{"data": strings.Repeat("x", 2000)})
	input := strings.Join([]string{event(t, "1", "customer.created", customer(1)), big, "nonsense"}, "\n")
	o := program(t, input, "-input", "-", "-transport", "memory://?max_message_bytes=1000")
	const want = "malformed=1 published=1 handled=1 retried=0 deduplicated=0 poisoned=0 unhandled=0 lost=0"
	if o.code != 0 || o.last() != want {
		t.Errorf("status %d, last line %q\nwant 0, %q", o.code, o.last(), want)
	}
	if !strings.Contains(o.stderr, "line 2: publish big: message is too large: payload of 2002 bytes, limit 1000\n") {
		t.Errorf("stderr %q", o.stderr)
	}
	if !strings.Contains(o.stdout, "not published: 1 ") {
		t.Errorf("the report does not say that an event was refused:\n%s", o.stdout)
	}
}

// A queue of one message holds the reading back; everything arrives all the same.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	var lines []string
	for i := range 500 {
		lines = append(lines, event(t, fmt.Sprint(i), "customer.created", customer(i+1)))
	}
	o := program(t, strings.Join(lines, "\n"), "-input", "-", "-transport", "memory://?queue_size=1")
	if want := (summary{published: 500, handled: 500}).String(); o.code != 0 || o.last() != want {
		t.Errorf("status %d, last line %q\nwant 0, %q", o.code, o.last(), want)
	}
}

func TestCancelledBeforeItBegins(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, nil, strings.NewReader(""), &stdout, &stderr)
	if code != exitFailed || stderr.Len() == 0 {
		t.Errorf("status %d, stderr %q", code, stderr.String())
	}
}

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gotidings/tidings/examples/documents/internal/document"
)

// once runs the program with -once and returns its last line.
func once(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), append([]string{"-once", "-patience", "5m"}, args...), noEnv, &stdout, &stderr)
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	if status != 0 {
		t.Errorf("exit status %d\n%s\n%s", status, &stdout, &stderr)
	}
	return lines[len(lines)-1]
}

func TestOnce(t *testing.T) {
	t.Parallel()
	for name, args := range map[string]func(*testing.T) []string{
		"memory":  func(*testing.T) []string { return nil },
		"servers": onServers,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, want := once(t, args(t)...), "documents=40 processed=40 failed=0 live=40 lost=0"; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// A file without text is refused by the analysis service, and its owner is told.
func TestInput(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for name, content := range map[string]string{"a.txt": "Dear Ada, all is well.", "B.TXT": "An invoice. It is long.", "empty.txt": " \n", "c.md": "no"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append(onFile(t), "-input", folder) // and the database is the broker
	if got, want := once(t, args...), "documents=3 processed=2 failed=1 live=3 lost=0"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A document that is not done in time is lost, and the exit status says so.
func TestLost(t *testing.T) {
	t.Parallel()
	s := start(t, newConfig(t, "-patience", "1s", "-shutdown-timeout", "10ms"))
	s.services.paymentFaults.Hang(true)
	sum, err := s.once(t.Context(), []file{{"a.txt", letter}, {"empty.txt", ""}})
	if want := (tally{documents: 2, failed: 1, live: 1, lost: 1}); sum != want || err == nil {
		t.Errorf("got %v, %v, want %v", sum, err, want)
	}
	s.services.paymentFaults.Hang(false)
	for _, test := range []struct {
		sum  tally
		lost bool
	}{
		{tally{documents: 3, processed: 2, failed: 1, live: 3}, false},
		{tally{documents: 3, processed: 2, live: 3, lost: 1}, true},
		{tally{documents: 3, processed: 3, live: 2}, true},
	} {
		if err := test.sum.verdict(); (err != nil) != test.lost {
			t.Errorf("%v: %v", test.sum, err)
		}
	}
	if got := fmt.Sprint(tally{1, 2, 3, 4, 5}); got != "documents=1 processed=2 failed=3 live=4 lost=5" {
		t.Error(got)
	}
}

// A program that starts again on the same database submits nothing twice.
func TestRestart(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t, onFile(t)...)
	files := []file{{"a.txt", letter}, {"b.txt", letter}, {"empty.txt", ""}}
	documents := func(s *system, files ...file) (list []document.Document) {
		s.submitAll(t.Context(), files)
		until(t, "the end of all documents", func() bool {
			var err error
			if list, err = s.store.List(t.Context(), query("ada")); err != nil {
				t.Fatal(err)
			}
			return len(list) >= len(files) && !slices.ContainsFunc(list, func(d document.Document) bool { return !d.Status.Final() })
		})
		return list
	}
	s := start(t, cfg)
	first := documents(s, files...)
	s.end(false)
	s = start(t, cfg)
	again := documents(s, files...)
	if len(first) != len(files) || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", first) {
		t.Errorf("got  %+v\nwant %+v", again, first)
	}
	if changed := documents(s, files[0], file{"b.txt", letter + "!"}); len(changed) != len(files)+1 {
		t.Errorf("with a file that has changed: %+v", changed)
	}
}

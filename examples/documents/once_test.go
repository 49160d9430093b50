package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/transports"
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
	s := start(t, newConfig(t, "-patience", "5s", "-shutdown-timeout", "10ms"))
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

// hook calls f when something is written.
type hook struct {
	bytes.Buffer
	f func()
}

func (h *hook) Write(data []byte) (int, error) {
	h.f()
	return h.Buffer.Write(data)
}

// Whatever is stuck, a run of -once ends within 30 s, and says what it knows.
func TestOnceStuck(t *testing.T) {
	t.Parallel()
	defaults, err := parse(t, nil, "-once")
	if err != nil {
		t.Fatal(err)
	}
	const patience = time.Second
	payments := func(t *testing.T) []string {
		t.Helper()
		var lc net.ListenConfig
		silent, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0") // nobody accepts
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = silent.Close() }) // nothing depends on it
		return []string{"-payments", "static:" + silent.Addr().String()}
	}
	for name, setup := range map[string]func(t *testing.T) (args []string, begun func()){
		"payments": func(t *testing.T) ([]string, func()) { t.Helper(); return payments(t), func() {} },
		"database": func(t *testing.T) ([]string, func()) { // when there are some documents
			t.Helper()
			args := append(onServers(t), payments(t)...)
			p := newProxy(t, &args[databaseURL])
			return args, func() { time.AfterFunc(patience/2, func() { p.slow(time.Hour) }) }
		},
		"broker": func(t *testing.T) ([]string, func()) {
			t.Helper()
			args := append(onServers(t), "-name", uniqueName()) // which it can't remove, so the test does
			cfg := newConfig(t, args...)
			t.Cleanup(func() { forget(t, cfg) })
			p := newProxy(t, &args[brokerURL])
			return args, func() { p.slow(time.Hour) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args, begun := setup(t)
			began := time.Now()
			stdout := &hook{f: sync.OnceFunc(begun)}
			status := run(t.Context(), append([]string{"-once", "-patience", patience.String()}, args...), noEnv, stdout, t.Output())
			took := time.Since(began) - patience + defaults.patience
			if name == "broker" {
				took += removeTimeout
			}
			if took > 30*time.Second {
				t.Errorf("with the usual patience it would take %v", took)
			}
			lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
			var n int
			last := lines[len(lines)-1]
			if _, err := fmt.Sscanf(last, "documents=%d", &n); err != nil || last != (tally{documents: n, lost: n}).String() || status != exitFailed {
				t.Errorf("exit status %d, %v: %s", status, err, last)
			}
			t.Log(took, last)
		})
	}
}

// forget removes what a system has left at its broker.
func forget(t *testing.T, cfg config) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	broker, err := transports.Open(ctx, cfg.transport)
	if err != nil {
		t.Error(err)
		return
	}
	for _, name := range cfg.subscriptions() {
		if err := broker.(transports.SubscriptionRemover).RemoveSubscription(ctx, name); err != nil {
			t.Error(err)
		}
	}
	if err := broker.Close(); err != nil {
		t.Error(err)
	}
}

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The children that compare starts are this test program.
	if len(os.Args) > 1 && os.Args[1] == "-once" {
		main()
		return
	}
	goleak.VerifyTestMain(m,
		// Nothing ends it: Watermill has no Close for its deduplicator's memory.
		goleak.IgnoreTopFunction("github.com/ThreeDotsLabs/watermill/message/router/middleware.(*mapExpiringKeyRepository).cleanOutLoop"))
}

func TestRunComparesInChildren(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "out.txt")
	var table, progress bytes.Buffer
	err := run(t.Context(), []string{
		"-run", "^memory/publishers=1/(tidings|watermill)$", "-rounds", "2", "-events", "200",
		"-out", file, "-profile", filepath.Join(dir, "profiles"),
	}, &table, &progress)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), "github.com/ThreeDotsLabs/watermill v1.") {
		t.Errorf("the header lacks the peer's version:\n%s", &table)
	}
	for _, peer := range []string{"tidings", "watermill"} {
		row := regexp.MustCompile(`(?m)^\| memory/publishers=1 \| ` + peer + ` +\|( +[\d.]+ \|){6} +[\d.]+–[\d.]+ \| +[\d.]+ \| +[\d.]+–[\d.]+ \|$`)
		if !row.Match(table.Bytes()) {
			t.Errorf("no row for %s in\n%s", peer, &table)
		}
	}
	lines, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^BenchmarkMemory/publishers=1/peer=\w+(-\d+)?\t200\t[\d.]+ ns/op\t\d+ B/op\t[\d.]+ allocs/op\t[\d.]+ cpu-ns/op$`)
	if got := len(line.FindAll(lines, -1)); got != 4 {
		t.Errorf("%d lines for benchstat, want 4:\n%s", got, lines)
	}
	profiles, err := filepath.Glob(filepath.Join(dir, "profiles", "memory_publishers=1_*.pprof"))
	if err != nil || len(profiles) != 4 {
		t.Errorf("profiles: %v, %v", profiles, err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-list", "-run", "publishers=8/w"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if want := "memory/publishers=8/watermill\nmemory/publishers=8/watermill-blocking\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

// Without a broker the memory cases can be measured still, and the others are named.
func TestWithoutABroker(t *testing.T) {
	t.Parallel()
	var table, told bytes.Buffer
	err := run(t.Context(), []string{"-rabbitmq", "", "-run", "publishers=1/tidings$|callers=64/tidings$", "-rounds", "1", "-events", "50"}, &table, &told)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(table.String(), "| rabbitmq") || !strings.Contains(told.String(), "left out: 1 cases that need a RabbitMQ server") {
		t.Errorf("table\n%s\ntold\n%s", &table, &told)
	}
	err = run(t.Context(), []string{"-rabbitmq", "", "-run", "callers=64/tidings$"}, &table, &told)
	if err == nil {
		t.Error("nothing to measure: no error")
	}
}

func TestBadCommandLine(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"-no-such", "-run (", "-rounds 0", "-events 0", "stray", "-targets -list", "-results x"} {
		var told bytes.Buffer
		var usage usageError
		if err := run(t.Context(), strings.Fields(line), io.Discard, &told); !errors.As(err, &usage) || told.Len() == 0 {
			t.Errorf("%q: error %v, told %q", line, err, &told)
		}
	}
	for _, line := range []string{"-run nothing-like-it", "-once nothing-like-it", "-soak nothing-like-it", "-idle nothing-like-it"} {
		if err := run(t.Context(), strings.Fields(line), io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", line)
		}
	}
}

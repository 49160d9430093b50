package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/internal/testserver"
)

// Each leg is a case that there is, with no more events than it allows, and each target
// asks for something.
func TestTargets(t *testing.T) {
	t.Parallel()
	cases := casesByName("")
	for _, target := range targets {
		if target.overPeer == 0 && target.overLimit == 0 && target.p50 == 0 {
			t.Errorf("%s asks for nothing", target.work)
		}
		if (target.overPeer > 0) == target.peer.absent() && target.p50 == 0 || target.overLimit > 0 && target.limit.absent() {
			t.Errorf("%s: what is compared is not what is asked for", target.work)
		}
		for _, l := range target.legs() {
			c, ok := cases[l.name]
			if !ok {
				t.Errorf("%s: there is no case %s", target.work, l.name)
			}
			if c.events(l.events) != l.events {
				t.Errorf("%s: %s is measured with %d events at most", target.work, l.name, c.most)
			}
		}
		if target.explained == "" {
			continue
		}
		page, err := os.ReadFile("../docs/performance.md")
		if err != nil || !strings.Contains(string(page), "## "+target.explained) {
			t.Errorf("%s: docs/performance.md has no section %q: %v", target.work, target.explained, err)
		}
	}
}

// A leg that two targets have is measured once a round, one that takes long in the first.
func TestMeasureTargets(t *testing.T) {
	t.Parallel()
	ours, peer, slow := leg{name: "ours", events: 10}, leg{name: "peer", events: 10}, leg{name: "slow", events: 1, once: true}
	all := []target{{ours: ours, peer: peer}, {ours: ours, peer: slow}}
	var order []string
	samples, err := measureTargets(all, 2, func(l leg, _ int) (sample, error) {
		order = append(order, l.name)
		return sample{Events: l.events, Elapsed: time.Second}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ours", "peer", "slow", "peer", "ours"}, order); diff != "" {
		t.Error(diff)
	}
	if len(samples[ours]) != 2 || len(samples[peer]) != 2 || len(samples[slow]) != 1 {
		t.Errorf("samples: %v", samples)
	}
	_, err = measureTargets(all, 1, func(leg, int) (sample, error) { return sample{}, io.ErrUnexpectedEOF })
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
}

// A limit that is measured before ours and after it counts as one measurement of both.
func TestMeasureAround(t *testing.T) {
	t.Parallel()
	tg := target{ours: leg{name: "ours", events: 3, once: true}, limit: leg{name: "limit", events: 2, once: true, around: true}, overLimit: 1}
	var order []string
	samples, err := measureTargets([]target{tg}, 2, func(l leg, _ int) (sample, error) {
		order = append(order, l.name)
		return sample{Events: l.events, Elapsed: time.Duration(len(order)) * time.Second}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"limit", "ours", "limit"}, order); diff != "" {
		t.Error(diff)
	}
	o := tg.outcome(samples) // 3 events in 2 s beside 4 events in 4 s
	if got := ratio(o.ourSamples, o.limitSamples); got != 1.5 {
		t.Errorf("ours ÷ limit = %v, want 1.5", got)
	}
}

func TestTargetIsMet(t *testing.T) {
	t.Parallel()
	times := func(n float64) []sample { // n times as slow as ours
		return takes(time.Duration(n*float64(time.Second)), time.Duration(n*float64(time.Second)))
	}
	late := func(p50, p99 time.Duration) []sample { return []sample{{Events: 1, Elapsed: 1, P50: p50, P99: p99}} }
	quick := target{p50: 10 * time.Millisecond, p99: 50 * time.Millisecond}
	for _, test := range []struct {
		name string
		outcome
		want bool
	}{
		{"as fast as it must be", outcome{target{overPeer: 3}, times(1), times(3), nil, nil}, true},
		{"not as fast", outcome{target{overPeer: 3}, times(1), times(2.9), nil, nil}, false},
		{"near the limit", outcome{target{overLimit: 0.7}, times(1), nil, times(0.71), nil}, true},
		{"not near it", outcome{target{overLimit: 0.7}, times(1), nil, times(0.69), nil}, false},
		{"faster than the peer and far from the limit", outcome{target{overPeer: 3, overLimit: 0.7}, times(1), times(5), times(0.1), nil}, false},
		{"a peer of one round", outcome{target{overPeer: 3}, times(1), times(3)[:1], nil, nil}, true},
		{"nothing measured", outcome{target{overPeer: 3}, times(1), nil, nil, nil}, false},
		{"quick", outcome{quick, late(9*time.Millisecond, 49*time.Millisecond), nil, nil, nil}, true},
		{"slow", outcome{quick, late(10*time.Millisecond, 49*time.Millisecond), nil, nil, nil}, false},
		{"slow at times", outcome{quick, late(time.Millisecond, 50*time.Millisecond), nil, nil, nil}, false},
	} {
		if got := test.met(); got != test.want {
			t.Errorf("%s: met is %v", test.name, got)
		}
	}
}

func TestWriteTargets(t *testing.T) {
	t.Parallel()
	ours := takes(time.Second, time.Second)
	var out bytes.Buffer
	writeTargets(&out, []outcome{
		{target{work: "one", overPeer: 3}, ours, takes(4*time.Second, 4*time.Second), nil, nil},
		{target{work: "two", overPeer: 3, explained: "Why"}, ours, takes(2*time.Second, 2*time.Second), nil, takes(time.Second, time.Second)},
		{target{work: "three", overPeer: 3, explained: "Not so"}, ours, takes(time.Second, time.Second), nil, takes(time.Second/3, time.Second/3)},
		{target{work: "four", overPeer: 1, overLimit: 0.7, explained: "How", bound: leg{name: "raw"}}, ours, ours, takes(time.Second/2, time.Second/2), takes(time.Second*5/6, time.Second*5/6)},
		{target{work: "five", overPeer: 1, overLimit: 0.7, explained: "Not so", bound: leg{name: "raw"}}, ours, ours, takes(time.Second/2, time.Second/2), takes(time.Second*2/3, time.Second*2/3)},
	})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{" yes |", " no: Why, 2.00 × peer |", " no |", " no: How, 1.20 × peer, 0.60 × limit |", " no |"} {
		if !strings.HasSuffix(lines[i+2], want) {
			t.Errorf("line\n%s\nwant\n%s", lines[i+2], want)
		}
	}
	if last := lines[len(lines)-1]; last != "targets met: 1 of 5, 2 explained" {
		t.Errorf("the last line is %q", last)
	}
}

func TestCompareTargets(t *testing.T) {
	t.Parallel()
	broker := testserver.RabbitMQ(t)
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	if err := os.WriteFile(file, []byte("# Results\n\nHow.\n\n## Before\n\nold\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err := run(t.Context(), []string{"-targets", "-run", "memory/publishers=1/", "-rounds", "1", "-events", "200", "-rabbitmq", broker, "-results", file}, &out, io.Discard)
	if errors.Is(err, errNoServer) && os.Getenv("REQUIRE_SERVICES") != "1" {
		t.Skipf("SKIPPED: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; !slices.Contains([]string{"targets met: 0 of 1, 0 explained", "targets met: 1 of 1, 0 explained"}, last) {
		t.Errorf("the last line is %q", last)
	}
	if !strings.Contains(out.String(), "fsync ") {
		t.Errorf("it does not say what is durable:\n%s", &out)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, after, found := strings.Cut(string(got), out.String())
	if !found || !strings.HasPrefix(before, "# Results\n\nHow.\n\n## ") || !strings.HasPrefix(after, "\n## Before\n\nold\n") {
		t.Errorf("the file is\n%s", got)
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1}, 5},
		{[]float64{9, 1, 2}, 2},
		{[]float64{100, 1, 2, 4}, 3},
	} {
		before := slices.Clone(test.values)
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", before, got, test.want)
		}
		if !slices.Equal(test.values, before) {
			t.Errorf("median reordered %v", before)
		}
	}
}

func TestSample(t *testing.T) {
	t.Parallel()
	s := sample{Events: 200, Elapsed: time.Millisecond, CPU: 2 * time.Millisecond, Allocs: 300, Bytes: 10_000}
	if s.nanos() != 5_000 || s.cpuNanos() != 10_000 || s.rate() != 200_000 || s.allocs() != 1.5 || s.bytes() != 50 {
		t.Errorf("per event: %v ns, %v CPU ns, %v events/s, %v allocs, %v bytes", s.nanos(), s.cpuNanos(), s.rate(), s.allocs(), s.bytes())
	}
}

func takes(each ...time.Duration) []sample {
	out := make([]sample, len(each))
	for i, d := range each {
		out[i] = sample{Events: 1000, Elapsed: d, CPU: 2 * d, Allocs: 2500, Bytes: 64_000}
	}
	return out
}

// The second round ran on a machine that was ten times slower: rates are far
// apart, ratios are not.
func TestRatiosAreByRound(t *testing.T) {
	t.Parallel()
	ref := takes(time.Millisecond, 10*time.Millisecond, time.Millisecond)
	peer := takes(3*time.Millisecond, 30*time.Millisecond, 4*time.Millisecond)
	if got, want := ratios(ref, peer), []float64{3, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("ratios %v, want %v", got, want)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	writeTable(&out, []result{
		{benchCase{group: "g", variant: "x=1", peer: reference}, takes(time.Millisecond, 10*time.Millisecond, time.Millisecond)},
		{benchCase{group: "g", variant: "x=1", peer: "other"}, takes(3*time.Millisecond, 20*time.Millisecond, 4*time.Millisecond)},
		{benchCase{group: "g", variant: "x=2", peer: "other"}, takes(time.Second, time.Second, time.Second)},
	})
	want := `
| case  | peer    | events/s | ns/event | CPU ns/event | allocs/event | bytes/event | tidings ÷ peer |   min–max | CPU ÷ tidings |   min–max |
| ----- | ------- | -------: | -------: | -----------: | -----------: | ----------: | -------------: | --------: | ------------: | --------: |
| g/x=1 | tidings |  1000000 |     1000 |         2000 |          2.5 |          64 |           1.00 | 1.00–1.00 |          1.00 | 1.00–1.00 |
| g/x=1 | other   |   250000 |     4000 |         8000 |          2.5 |          64 |           3.00 | 2.00–4.00 |          3.00 | 2.00–4.00 |
| g/x=2 | other   |     1000 |  1000000 |      2000000 |          2.5 |          64 |                |           |               |           |
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got%swant%s", got, want)
	}
}

func TestNotes(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	writeNotes(&out, []result{
		{benchCase{variant: "x=1", peer: "a", note: "like for like"}, nil},
		{benchCase{variant: "x=1", peer: "b"}, nil},
		{benchCase{variant: "x=2", peer: "a", note: "like for like"}, nil},
	})
	if got, want := out.String(), "\n- *a*: like for like.\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBenchLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	writeBenchLine(&out, benchCase{group: "memory", variant: "publishers=1", peer: "other"},
		sample{Events: 1000, Elapsed: 1234567, CPU: 2_000_000, Allocs: 2500, Bytes: 64_400})
	got := strings.Replace(out.String(), "other-", "other\t", 1) // the number of processors follows, if it is not one
	if fields := strings.Fields(got); fields[0] != "BenchmarkMemory/publishers=1/peer=other" ||
		!strings.HasSuffix(got, "\t1000\t1234.6 ns/op\t64 B/op\t2.5 allocs/op\t2000.0 cpu-ns/op\n") ||
		strings.Contains(out.String(), "other-") != (runtime.GOMAXPROCS(0) > 1) {
		t.Errorf("line %q", out.String())
	}
}

func TestMachine(t *testing.T) {
	t.Parallel()
	m := thisMachine()
	var out bytes.Buffer
	m.writeHeader(&out, "3 rounds of up to 1000 events")
	for _, part := range []string{m.cpu, runtime.Version(), runtime.GOOS, "3 rounds of up to 1000 events"} {
		if part == "" || !strings.Contains(out.String(), part) {
			t.Errorf("no %q in\n%s", part, &out)
		}
	}
	if got := field("no such file", "key"); got != "" {
		t.Errorf("field of no file: %q", got)
	}
}

func TestPurchaseSize(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(newPurchase(50_000))
	if err != nil || len(data) < 250 || len(data) > 262 {
		t.Errorf("an event is %d bytes of JSON, %v", len(data), err)
	}
}

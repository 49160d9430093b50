package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"unicode/utf8"
)

// median returns the middle of values, of which there is at least one.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// medianOf returns the median of something in samples.
func medianOf(samples []sample, what func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = what(s)
	}
	return median(values)
}

// ratios returns how many times the rate of each sample the rate of ref is, round
// by round: both were measured within seconds, so that a slow minute of the machine
// cancels out.
func ratios(ref, samples []sample) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = ref[i].rate() / s.rate()
	}
	return out
}

// cpuRatios is [ratios] of the processor time of an event: how many times that of ref a sample
// takes. Where it is not known there are none.
func cpuRatios(ref, samples []sample) []float64 {
	var out []float64
	for i, s := range samples {
		if ref[i].CPU > 0 {
			out = append(out, s.cpuNanos()/ref[i].cpuNanos())
		}
	}
	return out
}

// spread writes the median of ratios and, beside it, the smallest and the largest.
func spread(all []float64) (middle, ends string) {
	if len(all) == 0 {
		return "", ""
	}
	return fmt.Sprintf("%.2f", median(all)), fmt.Sprintf("%.2f–%.2f", slices.Min(all), slices.Max(all))
}

// writeTable writes the medians of each case as a Markdown table.
func writeTable(w io.Writer, results []result) {
	refs := make(map[string][]sample)
	for _, r := range results {
		if r.peer == reference {
			refs[r.work()] = r.samples
		}
	}
	rows := [][]string{{"case", "peer", "events/s", "ns/event", "CPU ns/event", "allocs/event", "bytes/event", reference + " ÷ peer", "min–max", "CPU ÷ " + reference, "min–max"}}
	for _, r := range results {
		var ratio, ratioEnds, cpu, cpuEnds string
		if ref, ok := refs[r.work()]; ok {
			ratio, ratioEnds = spread(ratios(ref, r.samples))
			cpu, cpuEnds = spread(cpuRatios(ref, r.samples))
		}
		rows = append(rows, []string{
			r.work(),
			r.peer,
			fmt.Sprintf("%.0f", medianOf(r.samples, sample.rate)),
			fmt.Sprintf("%.0f", medianOf(r.samples, sample.nanos)),
			fmt.Sprintf("%.0f", medianOf(r.samples, sample.cpuNanos)),
			fmt.Sprintf("%.1f", medianOf(r.samples, sample.allocs)),
			fmt.Sprintf("%.0f", medianOf(r.samples, sample.bytes)),
			ratio,
			ratioEnds,
			cpu,
			cpuEnds,
		})
	}
	const texts = 2 // columns that are aligned to the left
	writeMarkdown(w, rows, texts)
}

// writeNotes says, below the table, what its peers are.
func writeNotes(w io.Writer, results []result) {
	told := make(map[string]bool)
	for _, r := range results {
		if r.note == "" || told[r.peer] {
			continue
		}
		if len(told) == 0 {
			fmt.Fprintln(w)
		}
		told[r.peer] = true
		fmt.Fprintf(w, "- *%s*: %s.\n", r.peer, r.note)
	}
}

// writeMarkdown writes rows, the first of which is the header, as a table that is
// aligned as plain text too.
func writeMarkdown(w io.Writer, rows [][]string, texts int) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	rule := make([]string, len(widths))
	for i, width := range widths {
		rule[i] = strings.Repeat("-", width)
		if i >= texts {
			rule[i] = rule[i][1:] + ":"
		}
	}
	for _, row := range slices.Insert(slices.Clone(rows), 1, rule) {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i < texts {
				cell += pad
			} else {
				cell = pad + cell
			}
			fmt.Fprint(w, "| ", cell, " ")
		}
		fmt.Fprintln(w, "|")
	}
}

// writeBenchLine writes a sample as a line of go test -bench, for benchstat.
func writeBenchLine(w io.Writer, c benchCase, s sample) {
	procs := ""
	if n := runtime.GOMAXPROCS(0); n > 1 {
		procs = fmt.Sprintf("-%d", n)
	}
	fmt.Fprintf(w, "Benchmark%s%s/%s/peer=%s%s\t%d\t%.1f ns/op\t%.0f B/op\t%.1f allocs/op\t%.1f cpu-ns/op\n",
		strings.ToUpper(c.group[:1]), c.group[1:], c.variant, c.peer, procs, s.Events, s.nanos(), s.bytes(), s.allocs(), s.cpuNanos())
}

// machine is what figures depend on besides the code.
type machine struct {
	cpu     string
	system  string
	modules []string // with versions
}

func thisMachine() machine {
	m := machine{cpu: cmp.Or(field("/proc/cpuinfo", "model name"), "unknown CPU"), system: runtime.GOOS + "/" + runtime.GOARCH}
	if name := strings.Trim(field("/etc/os-release", "PRETTY_NAME"), `"`); name != "" {
		m.system += ", " + name
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			version := dep.Version
			if dep.Replace != nil {
				version = cmp.Or(dep.Replace.Version, "(devel)")
			}
			m.modules = append(m.modules, dep.Path+" "+version)
		}
	}
	return m
}

// field returns the first value of a key in a file of lines as "key: value" or
// "key=value", or nothing when there is none: such files are Linux's.
func field(path, key string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		i := strings.IndexAny(lines.Text(), ":=")
		if i >= 0 && strings.TrimSpace(lines.Text()[:i]) == key {
			return strings.TrimSpace(lines.Text()[i+1:])
		}
	}
	return ""
}

// writeHeader says under which conditions the table came about.
func (m machine) writeHeader(w io.Writer, rounds string) {
	fmt.Fprintf(w, "%s, %d cores, GOMAXPROCS %d, %s, %s%s\n", m.cpu, runtime.NumCPU(), runtime.GOMAXPROCS(0), runtime.Version(), m.system, load())
	fmt.Fprintf(w, "medians of %s; %s ÷ peer compares events/s round by round\n", rounds, reference)
	fmt.Fprintf(w, "with %s\n\n", strings.Join(m.modules, ", "))
}

// load says how busy the machine is, the benchmark included, where that is known.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	minute, _, _ := strings.Cut(string(text), " ")
	return ", a load of " + minute + " at the end"
}

// writeBenchHeader writes the configuration lines of go test -bench.
func (m machine) writeBenchHeader(w io.Writer) {
	fmt.Fprintf(w, "goos: %s\ngoarch: %s\npkg: github.com/gotidings/tidings/bench\ncpu: %s\n", runtime.GOOS, runtime.GOARCH, m.cpu)
}

// addResults adds a section to a Markdown file, before its first one.
func addResults(path, title, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	intro, rest, found := strings.Cut(string(old), "\n## ")
	section := "\n## " + title + "\n\n" + text
	if found {
		section += "\n## " + rest
	}
	return os.WriteFile(path, []byte(intro+section), 0o644)
}

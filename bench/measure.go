package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// patience is how long a round may take before it counts as stuck.
const patience = 5 * time.Minute

// sample is one measurement of a case.
type sample struct {
	Events  int
	Elapsed time.Duration // from the first publish to the last event handled
	CPU     time.Duration // used by the whole process in the same time; 0 where that is not known
	Allocs  uint64        // heap objects
	Bytes   uint64        // of heap

	P50, P99 time.Duration // latencies; 0 where only the rate was measured
}

func (s sample) per(total float64) float64 { return total / float64(s.Events) }
func (s sample) nanos() float64            { return s.per(float64(s.Elapsed.Nanoseconds())) }
func (s sample) cpuNanos() float64         { return s.per(float64(s.CPU.Nanoseconds())) }
func (s sample) allocs() float64           { return s.per(float64(s.Allocs)) }
func (s sample) bytes() float64            { return s.per(float64(s.Bytes)) }
func (s sample) rate() float64             { return 1e9 / s.nanos() }

// measure runs a case once, on a rig of its own.
func measure(ctx context.Context, c benchCase, events int) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l := newLedger(events)
	r, err := c.prepare(ctx, l)
	if err != nil {
		return sample{}, fmt.Errorf("prepare: %w", err)
	}

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start, startCPU := time.Now(), cpuTime()
	if err = r.run(ctx); err == nil {
		err = l.wait(ctx)
	}
	elapsed, cpu := time.Since(start), cpuTime()-startCPU
	runtime.ReadMemStats(&after)

	if err = errors.Join(err, r.close()); err == nil {
		err = l.verify()
	}
	return sample{
		Events:  events,
		Elapsed: elapsed,
		CPU:     cpu,
		Allocs:  after.Mallocs - before.Mallocs,
		Bytes:   after.TotalAlloc - before.TotalAlloc,
		P50:     l.latency(0.5),
		P99:     l.latency(0.99),
	}, err
}

// measureWarm measures after a tenth of the events that don't count, on a rig of
// their own. With a directory it also writes profiles of what counts.
func measureWarm(ctx context.Context, c benchCase, events int, profileDir string) (s sample, err error) {
	if _, err := measure(ctx, c, max(events/10, 1)); err != nil {
		return sample{}, fmt.Errorf("warm-up: %w", err)
	}
	if profileDir == "" {
		return measure(ctx, c, events)
	}
	if err := os.MkdirAll(profileDir, 0o755); err != nil {
		return sample{}, err
	}
	name := filepath.Join(profileDir, strings.ReplaceAll(c.name(), "/", "_"))
	cpu, err := os.Create(name + ".cpu.pprof")
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	mem, err := os.Create(name + ".allocs.pprof")
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, mem.Close()) }()
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return sample{}, err
	}
	s, err = measure(ctx, c, events)
	pprof.StopCPUProfile()
	return s, errors.Join(err, pprof.Lookup("allocs").WriteTo(mem, 0))
}

// measureInChild measures in a new process of this program.
func measureInChild(ctx context.Context, c benchCase, o options) (sample, error) {
	self, err := os.Executable()
	if err != nil {
		return sample{}, err
	}
	cmd := exec.CommandContext(ctx, self, "-once", c.name(), "-events", strconv.Itoa(o.events), "-profile", o.profile)
	cmd.Env = append(os.Environ(), brokerVariable+"="+o.broker)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", c.name(), err)
	}
	var s sample
	if err := json.Unmarshal(out, &s); err != nil {
		return sample{}, fmt.Errorf("%s: what the child printed: %w", c.name(), err)
	}
	return s, nil
}

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A target is what the library is to reach in some work, beside a peer and beside the
// limit, which is the raw client or the bare transport. -targets measures all of them.
type target struct {
	work string
	ours leg

	peer     leg
	overPeer float64 // times the peer's rate, at least

	limit     leg
	overLimit float64 // of the limit's rate, at least

	p50, p99 time.Duration // of ours, less than; 0: the rate is what counts

	// explained is the section of docs/performance.md that shows that the limit forbids
	// the target; "" where it doesn't. It counts in a run in which the bound, or the limit
	// where there is none, does not meet the target itself.
	explained string
	bound     leg // the raw client in the same work, where the limit is in other work
}

// leg is a case measured with a number of events, in each round or only in the first,
// where it takes so long that three of it were too long.
type leg struct {
	name   string
	events int
	once   bool

	around bool // a limit that is measured before ours and again after it, both together
	again  bool // the second time
}

func (l leg) absent() bool { return l.name == "" }

// measure measures the leg in a process of its own.
func (l leg) measure(ctx context.Context, cases map[string]benchCase, o options) (sample, error) {
	c, ok := cases[l.name]
	if !ok {
		return sample{}, errors.New("there is no case " + l.name)
	}
	o.events = min(l.events, o.events)
	return measureInChild(ctx, c, o)
}

// The servers that targets are measured on, where nothing else is said.
const defaultBroker = "amqp://guest:guest@127.0.0.1:5672/"

// Targets that have a leg in common follow each other: what the machine and the broker
// are at changes within a minute.
var targets = []target{
	{
		work: "in memory, publish to handled, 1 publisher",
		ours: leg{name: "memory/publishers=1/tidings", events: 120_000},
		peer: leg{name: "memory/publishers=1/watermill", events: 120_000}, overPeer: 3,
		limit: leg{name: "memory/publishers=1/router", events: 120_000},
	},
	{
		work: "in memory, publish to handled, 8 publishers",
		ours: leg{name: "memory/publishers=8/tidings", events: 120_000},
		peer: leg{name: "memory/publishers=8/watermill", events: 120_000}, overPeer: 3,
		limit:     leg{name: "memory/publishers=8/router", events: 120_000},
		explained: "In memory, 8 publishers",
	},
	{
		work: "RabbitMQ, publish 100 a call",
		ours: leg{name: "rabbitmq-publish/callers=1/batch=100/tidings", events: 20_000},
		peer: leg{name: "rabbitmq-publish/callers=1/batch=100/watermill-amqp", events: 3_000}, overPeer: 10,
		limit: leg{name: "rabbitmq-publish/callers=1/batch=100/raw-window", events: 20_000}, overLimit: 0.7,
		explained: "Publishing 100 a call",
		bound:     leg{name: "rabbitmq-publish/callers=1/batch=100/raw", events: 20_000},
	},
	{
		work:  "bus over its transport, RabbitMQ, publish",
		ours:  leg{name: "rabbitmq-publish/callers=1/batch=100/tidings", events: 20_000},
		limit: leg{name: "rabbitmq-publish/callers=1/batch=100/transport", events: 20_000}, overLimit: 0.85,
	},
	{
		work: "RabbitMQ, publish, 64 callers",
		ours: leg{name: "rabbitmq-publish/callers=64/tidings", events: 20_000},
		peer: leg{name: "rabbitmq-publish/callers=64/watermill-amqp", events: 3_000}, overPeer: 10,
		limit: leg{name: "rabbitmq-publish/callers=64/raw-window", events: 20_000}, overLimit: 0.7,
		explained: "Publishing with 64 callers",
	},
	{
		work:  "RabbitMQ, consume, handler returns at once",
		ours:  leg{name: "rabbitmq-consume/handler=instant/tidings", events: 30_000},
		limit: leg{name: "rabbitmq-consume/handler=instant/raw", events: 30_000}, overLimit: 0.65,
	},
	{
		work:  "bus over its transport, RabbitMQ, consume",
		ours:  leg{name: "rabbitmq-consume/handler=instant/tidings", events: 30_000},
		limit: leg{name: "rabbitmq-consume/handler=instant/transport", events: 30_000}, overLimit: 0.85,
	},
	{
		work: "RabbitMQ, consume, handler of 10 ms, concurrency 64",
		ours: leg{name: "rabbitmq-consume/handler=10ms/concurrency=64/tidings", events: 10_000},
		peer: leg{name: "rabbitmq-consume/handler=10ms/concurrency=64/watermill-amqp", events: 200}, overPeer: 50,
	},
	{
		work: "PostgreSQL, backlog of 20,000",
		ours: leg{name: "postgres/work=drain/tidings", events: 20_000},
		peer: leg{name: "postgres/work=drain/watermill-sql", events: 20_000}, overPeer: 3,
	},
	{
		work: "PostgreSQL, backlog of 20,000, beside River",
		ours: leg{name: "postgres/work=drain/tidings", events: 20_000},
		peer: leg{name: "postgres/work=drain/river", events: 20_000}, overPeer: 1,
	},
	{
		work: "PostgreSQL, backlog of 200,000",
		ours: leg{name: "postgres/work=drain/tidings", events: 200_000, once: true},
		peer: leg{name: "postgres/work=drain/watermill-sql", events: 200_000, once: true}, overPeer: 10,
	},
	{
		work:  "PostgreSQL, backlog of 1,000,000 beside 200,000",
		ours:  leg{name: "postgres/work=drain/tidings", events: 1_000_000, once: true},
		limit: leg{name: "postgres/work=drain/tidings", events: 200_000, once: true, around: true}, overLimit: 0.9,
	},
	{
		work: "PostgreSQL, idle, publish to handler",
		ours: leg{name: "postgres/work=idle/tidings", events: 100},
		peer: leg{name: "postgres/work=idle/watermill-sql", events: 5, once: true},
		p50:  10 * time.Millisecond,
	},
	{
		work: "outbox to RabbitMQ, backlog",
		ours: leg{name: "outbox/work=drain/tidings", events: 30_000},
		peer: leg{name: "outbox/work=drain/watermill-forwarder", events: 2_000, once: true}, overPeer: 10,
	},
	{
		work: "outbox to RabbitMQ, idle, commit to confirm",
		ours: leg{name: "outbox/work=idle/tidings", events: 100},
		peer: leg{name: "outbox/work=idle/watermill-forwarder", events: 5, once: true},
		p50:  10 * time.Millisecond, p99: 50 * time.Millisecond,
	},
}

// legs returns what a target compares, in the order of a round.
func (t target) legs() []leg {
	legs := []leg{t.ours, t.peer, t.limit, t.bound}
	if t.limit.around {
		legs = []leg{t.limit, t.ours, t.peer, t.limit.afterwards()}
	}
	return slices.DeleteFunc(legs, leg.absent)
}

func (l leg) afterwards() leg {
	l.again = true
	return l
}

// outcome picks what was measured for the target.
func (t target) outcome(samples map[leg][]sample) outcome {
	o := outcome{t, samples[t.ours], samples[t.peer], samples[t.limit], samples[t.bound]}
	if t.limit.around {
		o.limitSamples = slices.Clone(samples[t.limit.afterwards()])
		for i, before := range samples[t.limit] {
			o.limitSamples[i].Events += before.Events
			o.limitSamples[i].Elapsed += before.Elapsed
		}
	}
	if t.bound.absent() {
		o.boundSamples = o.limitSamples
	}
	return o
}

// measureTargets measures every leg of the targets in rounds. Those of one target follow
// each other, in an order that is reversed in every other round; one that several have is
// measured once a round.
func measureTargets(all []target, rounds int, measure func(l leg, round int) (sample, error)) (map[leg][]sample, error) {
	samples := make(map[leg][]sample)
	for round := range rounds {
		for _, t := range all {
			legs := t.legs()
			if round%2 == 1 {
				slices.Reverse(legs)
			}
			for _, l := range legs {
				if len(samples[l]) > round || l.once && round > 0 {
					continue
				}
				s, err := measure(l, round)
				if err != nil {
					return nil, fmt.Errorf("round %d: %w", round+1, err)
				}
				samples[l] = append(samples[l], s)
			}
		}
	}
	return samples, nil
}

// outcome is what came out of a target.
type outcome struct {
	target
	ourSamples, peerSamples, limitSamples, boundSamples []sample
}

// ratio returns the median of the ratios of the rates, of the rounds that both have, or
// 0 where there is nothing to compare with.
func ratio(samples, other []sample) float64 {
	n := min(len(samples), len(other))
	if n == 0 {
		return 0
	}
	return median(ratios(samples[:n], other[:n]))
}

// latency returns the median of a latency in the rounds, as milliseconds are read.
func latency(samples []sample, of func(sample) time.Duration) time.Duration {
	return time.Duration(medianOf(samples, func(s sample) float64 { return float64(of(s)) })).Round(10 * time.Microsecond)
}

func (s sample) p50() time.Duration { return s.P50 }
func (s sample) p99() time.Duration { return s.P99 }

// met reports whether all that the target asks for was reached.
func (o outcome) met() bool {
	switch {
	case !o.fastEnough(o.ourSamples),
		o.p50 > 0 && latency(o.ourSamples, sample.p50) >= o.p50,
		o.p99 > 0 && latency(o.ourSamples, sample.p99) >= o.p99:
		return false
	}
	return true
}

// fastEnough reports whether rates that were measured in the same rounds as ours are what
// the target asks for.
func (o outcome) fastEnough(samples []sample) bool {
	return ratio(samples, o.peerSamples) >= o.overPeer && ratio(samples, o.limitSamples) >= o.overLimit
}

// forbidden reports whether it is the limit that is in the way, and said to be.
func (o outcome) forbidden() bool {
	return o.explained != "" && len(o.boundSamples) > 0 && !o.fastEnough(o.boundSamples)
}

// bounds says what the limit itself reaches.
func (o outcome) bounds() string {
	var text string
	if o.overPeer > 0 {
		text += fmt.Sprintf(", %.2f × peer", ratio(o.boundSamples, o.peerSamples))
	}
	if o.overLimit > 0 && !o.bound.absent() {
		text += fmt.Sprintf(", %.2f × limit", ratio(o.boundSamples, o.limitSamples))
	}
	return text
}

// wanted says what the target asks for.
func (o outcome) wanted() string {
	var parts []string
	for _, part := range []struct {
		set    bool
		format string
		value  any
	}{
		{o.overPeer > 0, "≥ %v × peer", o.overPeer},
		{o.overLimit > 0, "≥ %v × limit", o.overLimit},
		{o.p50 > 0, "p50 < %v", o.p50},
		{o.p99 > 0, "p99 < %v", o.p99},
	} {
		if part.set {
			parts = append(parts, fmt.Sprintf(part.format, part.value))
		}
	}
	return strings.Join(parts, ", ")
}

// figure is a rate, or the latencies where those count.
func (o outcome) figure(samples []sample) string {
	switch {
	case len(samples) == 0:
		return ""
	case o.p50 > 0:
		return fmt.Sprintf("%v, p99 %v", latency(samples, sample.p50), latency(samples, sample.p99))
	}
	return fmt.Sprintf("%.0f/s", medianOf(samples, sample.rate))
}

// row is the target's line of the table.
func (o outcome) row() []string {
	times := func(samples []sample) string {
		switch {
		case len(samples) == 0:
			return ""
		case o.p50 > 0:
			return fmt.Sprintf("1/%.0f", float64(latency(samples, sample.p50))/float64(latency(o.ourSamples, sample.p50)))
		}
		return fmt.Sprintf("%.2f", ratio(o.ourSamples, samples))
	}
	verdict := "yes"
	if !o.met() {
		verdict = "no"
		if o.forbidden() {
			verdict = "no: " + o.explained + o.bounds()
		}
	}
	return []string{
		o.work, o.figure(o.ourSamples), o.figure(o.peerSamples), o.figure(o.limitSamples),
		times(o.peerSamples), times(o.limitSamples), o.wanted(), verdict,
	}
}

// writeTargets writes the table and, as its last line, how many targets are met.
func writeTargets(w io.Writer, outcomes []outcome) {
	rows := [][]string{{"work", "ours", "peer", "limit", "÷ peer", "÷ limit", "target", "met"}}
	met, explained := 0, 0
	for _, o := range outcomes {
		rows = append(rows, o.row())
		switch {
		case o.met():
			met++
		case o.forbidden():
			explained++
		}
	}
	const texts = 1
	writeMarkdown(w, rows, texts)
	fmt.Fprintf(w, "\ntargets met: %d of %d, %d explained\n", met, len(outcomes), explained)
}

// compareTargets is -targets.
func compareTargets(ctx context.Context, o options, stdout, stderr io.Writer) error {
	o.broker = cmp.Or(o.broker, defaultBroker)
	cases := casesByName(o.broker)
	var chosen []target
	for _, t := range targets {
		if o.pattern.MatchString(t.ours.name) {
			chosen = append(chosen, t)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no target is left of -run %q", o.pattern)
	}
	durability, err := durabilityOf(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	samples, err := measureTargets(chosen, o.rounds, func(l leg, round int) (sample, error) {
		fmt.Fprintf(stderr, "%4.0f s, round %d of %d: %s\n", time.Since(began).Seconds(), round+1, o.rounds, l.name)
		return l.measure(ctx, cases, o)
	})
	if err != nil {
		return err
	}
	var report bytes.Buffer
	m := thisMachine()
	m.writeHeader(&report, fmt.Sprintf("%d rounds, of slow peers one", o.rounds))
	fmt.Fprintln(&report, durability)
	outcomes := make([]outcome, len(chosen))
	var told []result
	for i, t := range chosen {
		outcomes[i] = t.outcome(samples)
		for _, l := range t.legs() {
			told = append(told, result{benchCase: cases[l.name]})
		}
	}
	writeNotes(&report, told)
	fmt.Fprintln(&report)
	writeTargets(&report, outcomes)
	if _, err := stdout.Write(report.Bytes()); err != nil || o.results == "" {
		return err
	}
	return addResults(o.results, time.Now().Format(time.DateOnly)+": the targets", report.String())
}

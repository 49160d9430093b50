package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// shownReasons is how many reasons for poisoning are shown of each subscription.
const shownReasons = 5

// table is the report on the subscriptions.
func table(rows []row) string {
	var b strings.Builder
	names := len("subscription")
	for _, r := range rows {
		names = max(names, len(r.name))
	}
	// All cells are aligned right but the names, which are padded.
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	cells := func(name string, values ...any) {
		fmt.Fprintf(w, "%-*s\t", names, name)
		for _, v := range values {
			fmt.Fprintf(w, "%v\t", v)
		}
		fmt.Fprintln(w)
	}
	cells("subscription", "handled", "retried", "deduplicated", "poisoned", "events/s", "p50", "p99")
	for _, r := range rows {
		p50, p99 := "-", "-"
		if r.handled > 0 {
			p50, p99 = shortDuration(r.p50), shortDuration(r.p99)
		}
		name := r.name
		if r.audit {
			name += " (#)"
		}
		cells(name, r.handled, r.retried, r.deduplicated, r.poisoned, int(r.perSecond), p50, p99)
	}
	_ = w.Flush() // into memory
	return b.String()
}

// poisonReport says why events were poisoned; it is empty when none was.
func poisonReport(rows []row) string {
	var b strings.Builder
	for _, r := range rows {
		others := 0
		for i, reason := range r.reasons {
			if i >= shownReasons {
				others += reason.count
				continue
			}
			fmt.Fprintf(&b, "  %s: %d × %s\n", r.name, reason.count, reason.text)
		}
		if others > 0 {
			fmt.Fprintf(&b, "  %s: %d × %s\n", r.name, others, otherReasons)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "poisoned, and why:\n" + b.String() + "\n"
}

// shortDuration is d with three digits or so.
func shortDuration(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	default:
		return d.Round(time.Microsecond).String()
	}
}

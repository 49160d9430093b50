package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gotidings/tidings/transports"
)

// summary is the last line of the report; the package documentation says what each
// count is.
type summary struct {
	malformed, published, handled, retried, deduplicated, poisoned, unhandled, lost int
}

func (s summary) String() string {
	return fmt.Sprintf("malformed=%d published=%d handled=%d retried=%d deduplicated=%d poisoned=%d unhandled=%d lost=%d",
		s.malformed, s.published, s.handled, s.retried, s.deduplicated, s.poisoned, s.unhandled, s.lost)
}

// summary balances the account as it is now.
func (l *ledger) summary() summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := summary{malformed: l.malformed, published: l.published, unhandled: l.unhandled}
	lost := make(map[transports.EventKey]bool) // an event that two subscriptions have lost is one
	for _, a := range l.accounts {
		if a.audit() {
			continue
		}
		t := a.total()
		s.handled += t.handled
		s.retried += t.retried
		s.deduplicated += t.deduplicated
		s.poisoned += t.poisoned
		for key, f := range a.fates {
			if f.copies > 0 && f.handled == 0 && f.poisoned == 0 {
				lost[key] = true
			}
		}
	}
	s.lost = len(lost)
	return s
}

// total is the sum over the events of a subscription.
type total struct{ handled, retried, deduplicated, poisoned int }

// total is called with mu held.
func (a *account) total() total {
	var t total
	for _, f := range a.fates {
		if f.copies == 0 {
			continue // not published after all
		}
		t.handled += int(f.handled)
		// A copy that fails again after a redrive has been counted.
		t.retried += int(min(f.retried, f.copies))
		t.deduplicated += int(f.deduplicated)
		t.poisoned += int(f.poisoned)
	}
	return t
}

// row is a subscription in the table of the report.
type row struct {
	name, eventType string
	audit           bool
	total
	perSecond float64        // handled, until the last one
	p50, p99  time.Duration  // from publish to handled; zero when nothing was handled
	reasons   []poisonReason // the most frequent first
}

type poisonReason struct {
	text  string
	count int // deliveries
}

// rows returns the table as it is now.
func (l *ledger) rows() []row {
	l.mu.Lock()
	defer l.mu.Unlock()
	rows := make([]row, len(l.accounts))
	for i, a := range l.accounts {
		slices.Sort(a.latencies)
		rows[i] = row{
			name: a.name, eventType: a.eventType, audit: a.audit(), total: a.total(),
			p50: percentile(a.latencies, 50), p99: percentile(a.latencies, 99),
		}
		if a.lastHandled > 0 {
			rows[i].perSecond = float64(rows[i].handled) / a.lastHandled.Seconds()
		}
		for text, count := range maps.All(a.reasons) {
			rows[i].reasons = append(rows[i].reasons, poisonReason{text, count})
		}
		slices.SortFunc(rows[i].reasons, func(x, y poisonReason) int {
			return cmp.Or(cmp.Compare(y.count, x.count), cmp.Compare(x.text, y.text))
		})
	}
	return rows
}

// percentile returns the smallest of the sorted values that p percent of them do not
// exceed (nearest rank).
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*p+99)/100-1]
}

// redriven returns what became of the events that were redriven.
func (l *ledger) redriven() (handled, poisoned, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.accounts {
		for _, f := range a.fates {
			switch {
			case !f.redriven:
			case f.handled > 0:
				handled++
			case f.poisoned > 0:
				poisoned++
			default:
				lost++
			}
		}
	}
	return handled, poisoned, lost
}

package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// ledger is the account of a run: for each event that the run has published, what
// each subscription that takes it has made of it. Two sources are kept apart: that an
// event was handled is the word of the handler itself; retries, duplicates and
// poisoned deliveries are what the bus reports. Nothing is found by subtraction.
//
// Its methods may be called concurrently. Events that the run has not published are
// ignored: others may use the same broker.
type ledger struct {
	mu       sync.Mutex // guards what follows, the accounts included
	accounts []*account // in the order of the report
	start    time.Time  // of the first publish

	malformed, refused, published, unhandled int // lines, and events

	expected int           // deliveries of what was or is being published
	open     int           // those that have no outcome yet
	steps    uint64        // reports of the bus so far: whether anything moves
	settled  chan struct{} // holds a token when open has become 0
}

// account is the part of a ledger that is about one subscription.
type account struct {
	name      string
	eventType string // "" is every type: the audit
	fates     map[transports.EventKey]fate

	latencies   []time.Duration // from publish to handled
	lastHandled time.Duration   // since the start
	reasons     map[string]int  // of poisoned deliveries
}

// fate is what has become of an event in a subscription. Each copy that was
// published of it is a delivery; the counts are of those.
type fate struct {
	publishedAt  time.Duration // of the first copy, since the start
	copies       int32         // published, or being published
	outcomes     int32         // at an end, one way or another
	handled      int32         // by the handler's own word
	deduplicated int32
	poisoned     int32 // in the poison queue now
	retried      int32 // first failures that another attempt followed
	byOutage     bool  // what poisoned it can be mended
	redriven     bool
}

// open is how many deliveries are still to come to an end. A delivery that a broker
// repeats after a lost acknowledgement is one outcome too many here; it does not make
// up for another event's.
func (f fate) open() int { return int(max(0, f.copies-f.outcomes)) }

func newLedger() *ledger { return &ledger{settled: make(chan struct{}, 1)} }

// follow opens the account of a subscription, before anything is published. An empty
// type stands for all: the audit.
func (l *ledger) follow(name, eventType string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accounts = append(l.accounts, &account{
		name: name, eventType: eventType, fates: make(map[transports.EventKey]fate), reasons: make(map[string]int),
	})
}

func (a *account) audit() bool { return a.eventType == "" }

func (a *account) takes(eventType string) bool { return a.audit() || a.eventType == eventType }

// deliveries is how many deliveries an event of a type is.
func (l *ledger) deliveries(eventType string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, a := range l.accounts {
		if a.takes(eventType) {
			n++
		}
	}
	return n
}

// publishing enters a copy of an event before it is published: it may be handled
// before Publish returns. Exactly one of confirmed and withdrawn follows.
func (l *ledger) publishing(md *events.Metadata) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.start.IsZero() {
		l.start = time.Now()
	}
	now := time.Since(l.start)
	l.eachFate(md, func(f *fate) {
		if f.copies == 0 {
			f.publishedAt = now
		}
		f.copies++
	})
}

// confirmed notes that a copy was published.
func (l *ledger) confirmed(md *events.Metadata) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.published++
	for _, a := range l.accounts {
		if !a.audit() && a.takes(md.Type) {
			return
		}
	}
	l.unhandled++
}

// withdrawn notes that a copy was not published.
func (l *ledger) withdrawn(md *events.Metadata) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused++
	l.eachFate(md, func(f *fate) { f.copies-- })
}

// noLine notes a line that is no event.
func (l *ledger) noLine() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.malformed++
}

// eachFate changes the fate of an event in every subscription that takes it. Called
// with mu held.
func (l *ledger) eachFate(md *events.Metadata, change func(*fate)) {
	key := transports.EventKey{Source: md.Source, ID: md.ID}
	for _, a := range l.accounts {
		if a.takes(md.Type) {
			f := a.fates[key]
			l.set(a, key, f, change)
		}
	}
}

// set changes a fate, and the sums with it. Called with mu held.
func (l *ledger) set(a *account, key transports.EventKey, f fate, change func(*fate)) {
	copies, open := f.copies, f.open()
	change(&f)
	a.fates[key] = f
	l.expected += int(f.copies - copies)
	l.open += f.open() - open
	if l.open == 0 {
		select {
		case l.settled <- struct{}{}:
		default:
		}
	}
}

// known changes the fate of an event in one subscription, if this run has published
// it. Called with mu held.
func (l *ledger) known(name string, md *events.Metadata, change func(*account, *fate)) {
	key := transports.EventKey{Source: md.Source, ID: md.ID}
	for _, a := range l.accounts {
		if a.name != name {
			continue
		}
		if f, ok := a.fates[key]; ok {
			l.set(a, key, f, func(f *fate) { change(a, f) })
		}
		return
	}
}

// handled is the word of a handler: it has handled the event that ctx is from.
func (l *ledger) handled(ctx context.Context, name string) {
	md, ok := events.MetadataFrom(ctx)
	if !ok {
		return // not from the bus
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Since(l.start)
	l.known(name, &md, func(a *account, f *fate) {
		f.handled++
		a.latencies = append(a.latencies, now-f.publishedAt)
		a.lastHandled = now
	})
}

// delivery is the word of the bus, its Config.OnDelivery.
func (l *ledger) delivery(d bus.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known(d.Subscription, &d.Metadata, func(a *account, f *fate) {
		l.steps++
		switch d.Outcome {
		case bus.Retried, bus.Redelivered:
			if d.Metadata.Attempt == 1 {
				f.retried++
			}
		case bus.Handled, bus.Discarded: // the handlers discard nothing
			f.outcomes++
		case bus.Deduplicated:
			f.outcomes++
			f.deduplicated++
		case bus.Poisoned:
			f.outcomes++
			f.poisoned++
			f.byOutage = errors.As(d.Err, new(*outageError))
			a.poisoned(reasonOf(d.Err))
		case bus.Deferred: // it comes back
		}
	})
}

// maxReasons bounds the memory of reasons: some quote what they found.
const maxReasons = 1000

const otherReasons = "other reasons"

// poisoned counts a reason. Called with the ledger's mu held.
func (a *account) poisoned(reason string) {
	reason = oneLine(reason, 120)
	if _, known := a.reasons[reason]; !known && len(a.reasons) >= maxReasons {
		reason = otherReasons
	}
	a.reasons[reason]++
}

// redrive returns the events that a subscription has poisoned because of an outage,
// and expects all their copies anew.
func (l *ledger) redrive(name string) map[transports.EventKey]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	chosen := make(map[transports.EventKey]bool)
	for _, a := range l.accounts {
		if a.name != name {
			continue
		}
		for key, f := range a.fates {
			if f.poisoned == 0 || !f.byOutage {
				continue
			}
			chosen[key] = true
			l.set(a, key, f, func(f *fate) {
				f.outcomes -= f.poisoned
				f.poisoned = 0
				f.redriven = true
			})
		}
	}
	return chosen
}

// names are the names of the subscriptions.
func (l *ledger) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := make([]string, len(l.accounts))
	for i, a := range l.accounts {
		names[i] = a.name
	}
	return names
}

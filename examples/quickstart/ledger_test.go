package main

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// book is a ledger with two named subscriptions, "a" and "b" of the type "x", one, "c",
// of the type "y", and an audit.
type book struct {
	*ledger
	t *testing.T
}

func newBook(t *testing.T) book {
	t.Helper()
	b := book{newLedger(), t}
	b.follow("a", "x")
	b.follow("b", "x")
	b.follow("c", "y")
	b.follow("audit", "")
	return b
}

func ofEvent(id, eventType string) *events.Metadata {
	return &events.Metadata{ID: id, Source: "s", Type: eventType}
}

func (b book) publish(id, eventType string) {
	b.publishing(ofEvent(id, eventType))
	b.confirmed(ofEvent(id, eventType))
}

// handle is what happens to an event that its handler handles.
func (b book) handle(name, id string) {
	b.handled(events.WithMetadata(b.t.Context(), ofEvent(id, "?")), name)
	b.report(name, id, bus.Handled, 1, nil)
}

func (b book) report(name, id string, outcome bus.Outcome, attempt int, err error) {
	md := *ofEvent(id, "?")
	md.Attempt = attempt
	b.delivery(bus.Delivery{Subscription: name, Metadata: md, Outcome: outcome, Err: err})
}

func (b book) want(want summary) {
	b.t.Helper()
	if got := b.summary(); got != want {
		b.t.Errorf("summary %v\nwant    %v", got, want)
	}
}

func (b book) wantOpen(want int) {
	b.t.Helper()
	if p := b.progress(); p.open != want {
		b.t.Errorf("%d deliveries are open, want %d", p.open, want)
	}
}

func TestLedgerHandled(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.publish("1", "x")
	b.wantOpen(3)
	b.handle("a", "1")
	b.handle("audit", "1")
	b.want(summary{published: 1, handled: 1, lost: 1}) // b has not
	b.handle("b", "1")
	b.wantOpen(0)
	b.want(summary{published: 1, handled: 2})
}

// That an event was handled is the handler's word alone.
func TestLedgerBelievesHandlersOnly(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.publish("1", "y")
	b.report("c", "1", bus.Handled, 1, nil)
	b.report("c", "1", bus.Deduplicated, 1, nil)
	b.want(summary{published: 1, deduplicated: 1, lost: 1})
}

func TestLedgerLostIsByEvent(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.publish("1", "x") // lost in two subscriptions, which is one event
	b.publish("2", "y")
	b.publish("3", "y")
	b.handle("c", "2")
	b.handle("c", "2") // does not make up for 3
	b.want(summary{published: 3, handled: 2, lost: 2})
	b.wantOpen(6)
}

func TestLedgerUnhandled(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.publish("1", "z")
	b.wantOpen(1) // the audit
	b.handle("audit", "1")
	b.want(summary{published: 1, unhandled: 1})
}

func TestLedgerCopies(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.publish("1", "y")
	b.publish("1", "y")
	b.handle("c", "1")
	b.wantOpen(3) // a copy in c, two in the audit
	b.report("c", "1", bus.Deduplicated, 0, nil)
	b.wantOpen(2)
	b.want(summary{published: 2, handled: 1, deduplicated: 1})
}

// Source and id together are an event, and only what was published here counts.
func TestLedgerIgnoresForeignEvents(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.publish("1", "y")
	for _, md := range []events.Metadata{
		{ID: "1", Source: "other", Type: "y"},
		{ID: "1", Type: "y"},
		{ID: "2", Source: "s", Type: "y"},
		{Type: "y"},
	} {
		b.handled(events.WithMetadata(t.Context(), &md), "c")
		for outcome := bus.Handled; outcome <= bus.Poisoned; outcome++ {
			b.delivery(bus.Delivery{Subscription: "c", Metadata: md, Outcome: outcome, Err: errors.New("no")})
		}
	}
	b.handled(t.Context(), "c") // not from the bus
	b.report("nobody", "1", bus.Poisoned, 1, errors.New("no"))
	b.want(summary{published: 1, lost: 1})
	b.wantOpen(2)
	if n := len(b.rows()[2].reasons); n != 0 {
		t.Errorf("%d reasons of foreign events", n)
	}
}

// The handler can be faster than the publisher.
func TestLedgerHandledBeforePublishReturns(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.publishing(ofEvent("1", "y"))
	b.handle("c", "1")
	b.handle("audit", "1")
	b.confirmed(ofEvent("1", "y"))
	b.wantOpen(0)
	b.want(summary{published: 1, handled: 1})
}

// An event whose Publish failed may have arrived all the same. It was not published.
func TestLedgerWithdrawn(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.publishing(ofEvent("1", "y"))
	b.handle("c", "1")
	b.withdrawn(ofEvent("1", "y"))
	b.handle("audit", "1")
	b.wantOpen(0)
	b.want(summary{})
	if p := b.progress(); p.refused != 1 || p.expected != 0 {
		t.Errorf("progress %+v", p)
	}
}

func TestLedgerRetried(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	b := newBook(t)
	b.publish("1", "y")
	b.report("c", "1", bus.Retried, 1, no)
	b.report("c", "1", bus.Retried, 2, no)
	b.report("c", "1", bus.Redelivered, 3, no)
	b.report("c", "1", bus.Retried, 4, no)
	b.handle("c", "1")
	b.want(summary{published: 1, handled: 1, retried: 1})

	b.publish("2", "y")
	b.report("c", "2", bus.Redelivered, 1, no) // the policy may have no attempts in place
	b.report("c", "2", bus.Deferred, 1, no)
	b.handle("c", "2")
	b.want(summary{published: 2, handled: 2, retried: 2})

	b.publish("3", "y")
	b.report("c", "3", bus.Poisoned, 1, no) // at the first attempt
	b.want(summary{published: 3, handled: 2, retried: 2, poisoned: 1})

	b.publish("4", "y")
	b.publish("4", "y") // one of the copies is retried, twice
	b.report("c", "4", bus.Retried, 1, no)
	b.report("c", "4", bus.Retried, 2, no)
	b.handle("c", "4")
	b.report("c", "4", bus.Deduplicated, 0, nil)
	b.want(summary{published: 5, handled: 3, retried: 3, deduplicated: 1, poisoned: 1})
}

func TestLedgerRedrive(t *testing.T) {
	t.Parallel()
	outage := bus.Permanent(&outageError{fault{of: stock, problem: "shut"}})
	b := newBook(t)
	for _, id := range []string{"1", "1", "2", "3"} {
		b.publish(id, "y")
		b.handle("audit", id)
	}
	b.report("c", "1", bus.Retried, 1, outage)
	b.report("c", "1", bus.Poisoned, 3, outage)
	b.report("c", "1", bus.Poisoned, 3, outage) // both copies
	b.report("c", "2", bus.Poisoned, 1, outage)
	b.report("c", "3", bus.Poisoned, 1, &bus.DecodeError{EventType: "y", Err: errors.New("bad")})
	b.want(summary{published: 4, retried: 1, poisoned: 4})
	b.wantOpen(0)

	chosen := b.redrive("c")
	if len(chosen) != 2 || !chosen[transports.EventKey{Source: "s", ID: "1"}] || !chosen[transports.EventKey{Source: "s", ID: "2"}] {
		t.Errorf("chosen: %v", chosen)
	}
	if again := b.redrive("c"); len(again) != 0 {
		t.Errorf("chosen twice: %v", again)
	}
	b.wantOpen(3)
	b.want(summary{published: 4, retried: 1, poisoned: 1, lost: 2})

	b.report("c", "1", bus.Retried, 1, outage) // counts from 1 again, and is the same delivery
	b.report("c", "1", bus.Retried, 1, outage)
	b.report("c", "1", bus.Retried, 1, outage)
	b.handle("c", "1")
	b.report("c", "1", bus.Deduplicated, 0, nil)
	b.report("c", "2", bus.Poisoned, 1, outage)
	b.wantOpen(0)
	b.want(summary{published: 4, handled: 1, retried: 2, deduplicated: 1, poisoned: 2})
	if handled, poisoned, lost := b.redriven(); handled != 1 || poisoned != 1 || lost != 0 {
		t.Errorf("redriven: %d handled, %d poisoned, %d lost", handled, poisoned, lost)
	}
	want := []poisonReason{{"stock: shut", 4}, {"bad", 1}}
	if got := b.rows()[2].reasons; !slices.Equal(got, want) {
		t.Errorf("reasons %v, want %v", got, want)
	}
}

// Some errors quote what they found: there can be as many as events.
func TestLedgerReasonsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	for i := range maxReasons + 10 {
		b.publish(fmt.Sprint(i), "y")
		b.report("c", fmt.Sprint(i), bus.Poisoned, 1, fmt.Errorf("cannot read %d\nat all", i))
	}
	reasons := b.rows()[2].reasons
	if len(reasons) != maxReasons+1 || reasons[0] != (poisonReason{otherReasons, 10}) || reasons[1].text != "cannot read 0; at all" {
		t.Errorf("%d reasons, the first ones %v", len(reasons), reasons[:2])
	}
}

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/gotidings/tidings/transports"
)

// watch finds out what becomes of events that were put back.
//
//	moved ──► pending, where the transport can tell ──► neither pending nor poisoned: handled
//	moved ──► the queue is empty, and none has come back for the time of --settle: handled
//	moved ──► poisoned: come back
type watch struct {
	*redrive
	moved   map[transports.EventKey][]chosenEvent // of one key where the events have no id
	pending []transports.EventKey                 // of those moved, as far as is known
	back    []transports.Poisoned                 // of those moved
	same    bool                                  // one of back has the fault that it had
	quiet   bool                                  // nothing is seen to be pending; only --settle has to pass
	late    error                                 // why the wait was given up
}

func (r *redrive) watch() *watch {
	return &watch{redrive: r, moved: make(map[transports.EventKey][]chosenEvent)}
}

// add notes that events were moved.
func (w *watch) add(events []chosenEvent) {
	for _, e := range events {
		if len(w.moved[e.key]) == 0 {
			w.pending = append(w.pending, e.key)
		}
		w.moved[e.key] = append(w.moved[e.key], e)
	}
}

// look notes which of the moved events are in the poison queue again: what was there before
// is another message, whatever its id.
func (w *watch) look(ctx context.Context) error {
	ctx, cancel := w.app.bounded(ctx)
	defer cancel()
	w.back, w.same = nil, false
	for p, err := range w.queue.Poisoned(ctx, w.subscription, transports.PoisonPage{}) {
		if err != nil {
			return err
		}
		if moved := w.movedAs(&p); moved != nil {
			w.back = append(w.back, p)
			w.same = w.same || p.Fingerprint() == moved.fingerprint
		}
	}
	return nil
}

// movedAs returns the moved event that p is, nil when it is none of them.
func (w *watch) movedAs(p *transports.Poisoned) *chosenEvent {
	if w.seen[p.Handle] {
		return nil
	}
	for _, e := range w.moved[p.Key()] {
		if p.Message.UUID != "" || e.payload == sha256.Sum256(p.Message.Payload) {
			return &e
		}
	}
	return nil
}

// pause is the time between two looks; more where a look takes long.
const pause = 200 * time.Millisecond

// await returns when the moved events are handled, or one has come back, or --wait is over,
// which sets w.late. waiting is how many are not handled yet, nil when that can't be told.
func (w *watch) await(ctx context.Context) (waiting *int, err error) {
	over := time.Now().Add(w.opts.wait)
	ask := w.empty()
	if reporter, ok := w.transport.(transports.PendingReporter); ok {
		ask = w.none(reporter)
	}
	for {
		began := time.Now()
		done, waits, err := ask(ctx)
		if err != nil || done || len(w.back) > 0 {
			return waits, err
		}
		if began.After(over) && !w.quiet {
			what := "what was"
			if waits != nil {
				what = plural(*waits, "event")
			}
			w.late = fmt.Errorf("%s moved to %s not handled within %v", what, w.subscription, w.opts.wait)
			return waits, nil
		}
		if err := sleep(ctx, max(pause, time.Since(began))); err != nil {
			return waits, err
		}
	}
}

// none asks a transport that can tell of each event.
func (w *watch) none(reporter transports.PendingReporter) func(context.Context) (bool, *int, error) {
	return func(ctx context.Context) (bool, *int, error) {
		call, cancel := w.app.bounded(ctx)
		defer cancel()
		before := len(w.pending)
		pending, err := reporter.Pending(call, w.subscription, w.pending...)
		if err != nil {
			return false, nil, err
		}
		w.pending = pending
		n := len(pending)
		if n < before { // after Pending: what is not there is in the poison queue by now, or handled
			err = w.look(ctx)
		}
		return n == 0, &n, err
	}
}

// empty asks a transport that can only count, see --settle. It looks through the poison
// queue when that has another length, since looking is work for the broker.
func (w *watch) empty() func(context.Context) (bool, *int, error) {
	reporter, counts := w.transport.(transports.DepthReporter) // not the management API, which counts late
	poisoned := -1
	var since time.Time // of the first count of nothing
	return func(ctx context.Context) (bool, *int, error) {
		var d transports.Depth
		if counts {
			call, cancel := w.app.bounded(ctx)
			defer cancel()
			var err error
			if d, err = reporter.Depth(call, w.subscription); err != nil {
				return false, nil, err
			}
		}
		if d.Poisoned != poisoned {
			poisoned = d.Poisoned
			if err := w.look(ctx); err != nil {
				return false, nil, err
			}
		}
		if d.Ready > 0 || d.InFlight > 0 || d.Delayed > 0 {
			since, w.quiet = time.Time{}, false
			return false, nil, nil
		}
		if since.IsZero() {
			since, w.quiet = time.Now(), true
		}
		return time.Since(since) >= w.opts.settle, nil, nil
	}
}

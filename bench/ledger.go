package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// purchase is the event of all cases: some 256 bytes of JSON, flat, of the kinds of
// fields that events have. Everything but Seq is the same in each, so that making
// and checking one costs next to nothing beside handling it.
type purchase struct {
	Seq        int    `json:"seq"`
	OrderID    string `json:"orderId"`
	CustomerID int64  `json:"customerId"`
	Customer   string `json:"customer"`
	Email      string `json:"email"`
	Street     string `json:"street"`
	City       string `json:"city"`
	Country    string `json:"country"`
	TotalCents int64  `json:"totalCents"`
	Currency   string `json:"currency"`
	Express    bool   `json:"express"`
}

const purchaseType = "purchase.made"

// EventType is the wire name, for the library.
func (purchase) EventType() string { return purchaseType }

// Name is the wire name, for Watermill's cqrs.NamedStruct.
func (purchase) Name() string { return purchaseType }

func newPurchase(seq int) purchase {
	return purchase{
		Seq:        seq,
		OrderID:    "4f1c2c5e-9f0b-4d53-8a55-0d1b6f1d2a77",
		CustomerID: 8_100_042,
		Customer:   "Ada Lovelace",
		Email:      "ada.lovelace@example.com",
		Street:     "12 St James's Square",
		City:       "London",
		Country:    "GB",
		TotalCents: 129_900,
		Currency:   "GBP",
		Express:    true,
	}
}

// ledger notes which of a round's events were handled.
type ledger struct {
	handledTimes []atomic.Uint32 // by Seq
	left         atomic.Int64    // events not handled yet
	full         chan struct{}   // closed when left reaches 0
	fault        chan error      // the first event that came out other than it went in

	each      chan time.Time  // when each event was handled; nil but in oneByOne
	latencies []time.Duration // of oneByOne
}

func newLedger(events int) *ledger {
	l := &ledger{
		handledTimes: make([]atomic.Uint32, events),
		full:         make(chan struct{}),
		fault:        make(chan error, 1),
	}
	l.left.Store(int64(events))
	return l
}

// publish sends every event once, from several publishers at a time, each with
// its share of them.
func (l *ledger) publish(ctx context.Context, publishers int, send func(context.Context, purchase) error) error {
	events := len(l.handledTimes)
	errs := make([]error, publishers)
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for seq := events * p / publishers; seq < events*(p+1)/publishers; seq++ {
				if err := send(ctx, newPurchase(seq)); err != nil {
					errs[p] = fmt.Errorf("publish event %d: %w", seq, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// publishBatches is publishAll where the events of a batch count as handled when send has
// returned without an error.
func (l *ledger) publishBatches(ctx context.Context, p publishing, send func(context.Context, []purchase) error) error {
	return l.publishAll(ctx, p, func(ctx context.Context, batch []purchase) error {
		if err := send(ctx, batch); err != nil {
			return err
		}
		for _, e := range batch {
			l.handled(e)
		}
		return nil
	})
}

// publishAll is publish for batches of events.
func (l *ledger) publishAll(ctx context.Context, p publishing, send func(context.Context, []purchase) error) error {
	events := len(l.handledTimes)
	errs := make([]error, p.callers)
	var wg sync.WaitGroup
	for c := range p.callers {
		wg.Go(func() {
			end := events * (c + 1) / p.callers
			for from := events * c / p.callers; from < end; from += p.batch {
				batch := make([]purchase, min(p.batch, end-from))
				for i := range batch {
					batch[i] = newPurchase(from + i)
				}
				if err := send(ctx, batch); err != nil {
					errs[c] = fmt.Errorf("publish %d events from %d on: %w", len(batch), from, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// handled is called by the handler of each case.
func (l *ledger) handled(e purchase) {
	if e.Seq < 0 || e.Seq >= len(l.handledTimes) || e != newPurchase(e.Seq) {
		select {
		case l.fault <- fmt.Errorf("an event was decoded as %+v", e):
		default: // one is enough
		}
		return
	}
	if l.handledTimes[e.Seq].Add(1) != 1 {
		return
	}
	if l.each != nil {
		l.each <- time.Now()
	}
	if l.left.Add(-1) == 0 {
		close(l.full)
	}
}

// idleTime is the time between two events of a service that is idle.
const idleTime = 25 * time.Millisecond

// singly makes the ledger ready for oneByOne.
func (l *ledger) singly() { l.each = make(chan time.Time, 1) }

// oneByOne sends each event when the one before has been handled, and some time has
// passed in peace. It makes the rate meaningless, and the ratio of rates with it: what is
// measured is the latency, from the time that send returns to the handler.
func (l *ledger) oneByOne(ctx context.Context, send func(context.Context, purchase) (since time.Time, err error)) error {
	one := func(seq int) (time.Duration, error) {
		select {
		case <-time.After(idleTime):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		since, err := send(ctx, newPurchase(seq))
		if err != nil {
			return 0, err
		}
		select {
		case at := <-l.each:
			return at.Sub(since), nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	l.latencies = make([]time.Duration, len(l.handledTimes))
	for seq := range l.latencies {
		var err error
		if l.latencies[seq], err = one(seq); err != nil {
			return err
		}
	}
	slices.Sort(l.latencies)
	return nil
}

// latency returns the latency of the event at a share of all, from 0 to 1; 0 where it was
// not measured.
func (l *ledger) latency(share float64) time.Duration {
	if len(l.latencies) == 0 {
		return 0
	}
	return l.latencies[int(share*float64(len(l.latencies)-1))]
}

// wait returns when every event was handled.
func (l *ledger) wait(ctx context.Context) error {
	select {
	case <-l.full:
		return nil
	case err := <-l.fault:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%d of %d events were not handled: %w", l.left.Load(), len(l.handledTimes), context.Cause(ctx))
	}
}

// verify tells, when nothing is under way any more, whether every event was
// handled once.
func (l *ledger) verify() error {
	select {
	case err := <-l.fault:
		return err
	default:
	}
	var lost, doubled int
	for i := range l.handledTimes {
		switch n := l.handledTimes[i].Load(); {
		case n == 0:
			lost++
		case n > 1:
			doubled++
		}
	}
	if lost+doubled > 0 {
		return fmt.Errorf("of %d events, %d were lost and %d were handled more than once", len(l.handledTimes), lost, doubled)
	}
	return nil
}

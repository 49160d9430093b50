package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

const (
	// patience is how long the end of all deliveries is waited for while nothing
	// happens. It is longer than any delay of a redelivery.
	patience = time.Minute

	shutdownTime = 10 * time.Second // for handlers, which answer at once
	cleanUpTime  = 30 * time.Second // for all of the end, also when the broker is away
)

// retry is the retry policy: up to three attempts in place, once more after a second.
var retry = bus.RetryPolicy{
	Attempts:     3,
	MinDelay:     10 * time.Millisecond,
	MaxDelay:     100 * time.Millisecond,
	Redeliveries: []time.Duration{time.Second},
}

// session is a run.
type session struct {
	service   string // begins the names of the subscriptions; no other run has it
	transport transports.Transport
	in        *input
	console   *console
	ledger    *ledger
	faults    *faults
	bus       *bus.Bus
	watching  sync.WaitGroup // waits for the bus
}

var errInterrupted = errors.New("interrupted")

func newSession(t transports.Transport, in *input, c *console) *session {
	id := make([]byte, 6)
	_, _ = rand.Read(id) // never fails
	s := &session{
		service: "quickstart-" + hex.EncodeToString(id), transport: t, in: in, console: c,
		ledger: newLedger(), faults: &faults{},
	}
	if in.sample != nil {
		s.faults.plan = in.sample.faults
	}
	return s
}

// run runs the session and closes the transport. An error says why it could not be
// finished, or that events were lost. A cancelled ctx ends the reading.
func (s *session) run(ctx context.Context) error {
	err := s.start(ctx)
	if err == nil {
		err = s.work(ctx)
	}
	err = errors.Join(err, s.cleanUp(ctx))
	sum := s.ledger.summary()
	if sum.lost > 0 {
		err = errors.Join(err, fmt.Errorf("%d events were lost", sum.lost))
	}
	s.console.print("%v\n", sum)
	return err
}

// start makes the bus, with all subscriptions, and starts it.
func (s *session) start(ctx context.Context) error {
	// The store forgets its oldest events when it is full, and a copy of a forgotten
	// one would be handled again. The ledger remembers all events in any case, so the
	// store may as well: the bounds are beyond what a run can reach.
	dedup, err := middleware.NewMemoryDedup(middleware.MemoryDedupConfig{Size: 1 << 30, Retention: 30 * 24 * time.Hour})
	if err != nil {
		return err
	}
	s.bus, err = bus.New(s.transport, bus.Config{
		Source:             s.service,
		Dedup:              dedup,
		AllowVolatileDedup: true, // the run's subscriptions do not outlive it either
		Retry:              retry,
		ShutdownTimeout:    shutdownTime,
		OnDelivery:         s.ledger.delivery,
	})
	if err != nil {
		return err
	}
	subscribe(s.bus, s.ledger, newCollaborators(s.faults))
	return s.bus.Start(ctx)
}

// work publishes the input, waits until it is handled, and redrives. It returns when
// nothing is under way any more.
func (s *session) work(ctx context.Context) error {
	// alive ends when the run can't be finished, and not by an interrupt: what was
	// published is handled to the end.
	alive, fail := context.WithCancelCause(context.WithoutCancel(ctx))
	defer fail(nil)
	s.watching.Go(func() { // ends with the bus
		if err := s.bus.Wait(); err != nil {
			fail(fmt.Errorf("the bus has ended: %w", err))
		}
	})

	s.console.print("publishing %s\n", oneLine(s.in.name, 200))
	stopProgress := s.console.showProgress(s.ledger, s.deliveries())
	began := time.Now()
	err := s.publish(ctx, alive, fail)
	published := time.Since(began)
	interrupted := errors.Is(err, errInterrupted)
	if interrupted {
		s.console.complain("interrupted: finishing what was published; interrupt again to end at once")
	}
	if err == nil || interrupted {
		err = errors.Join(err, s.ledger.wait(alive, patience))
	}
	stopProgress()
	p := s.ledger.progress()
	s.console.print("published %d events in %s, handled after %s\n\n", p.published, shortDuration(published), shortDuration(time.Since(began)))

	rows := s.ledger.rows()
	s.console.print("%s\n%s", table(rows), poisonReport(rows))
	if p.refused > 0 {
		s.console.print("not published: %d events\n", p.refused)
	}
	if err != nil {
		return err
	}
	return s.redrive(alive)
}

// deliveries is how many deliveries the sample makes, 0 when the input is another.
func (s *session) deliveries() int {
	n := 0
	if s.in.sample != nil {
		for _, raw := range s.in.sample.events {
			n += s.ledger.deliveries(raw.Metadata.Type)
		}
	}
	return n
}

// publish publishes the input. It returns when it is read, when ctx or alive ends,
// and when nothing is being published any more.
func (s *session) publish(ctx, alive context.Context, fail context.CancelCauseFunc) error {
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(alive, func() { stop(context.Cause(alive)) })()

	p := &publisher{
		bus: s.bus, transport: s.transport, ledger: s.ledger, console: s.console, fail: fail,
		slots: make(chan struct{}, publishers), last: make(map[string]chan struct{}),
	}
	defer p.wait()

	// Nothing can interrupt a read of standard input, so the reader is not waited for:
	// after an interrupt it ends when its read does, or with the process.
	type result struct {
		line line
		err  error
	}
	lines := make(chan result)
	go func() {
		defer close(lines)
		for l, err := range s.in.lines {
			select {
			case lines <- result{l, err}:
			case <-reading.Done():
				return
			}
		}
	}()
	for {
		var r result
		var more bool
		select {
		case r, more = <-lines:
		case <-reading.Done():
		}
		switch {
		case alive.Err() != nil:
			return context.Cause(alive)
		case ctx.Err() != nil:
			return errInterrupted
		case !more:
			return nil
		case r.err != nil:
			return r.err
		case r.line.malformed != nil:
			s.ledger.noLine()
			s.console.complain("line %d: %v", r.line.number, r.line.malformed)
		default:
			if r.line.raw.Metadata.Source == "" {
				r.line.raw.Metadata.Source = s.service // the sample leaves it to us
			}
			p.send(reading, alive, r.line)
		}
	}
}

// redrive mends what makes the collaborators fail and brings back what they have
// poisoned.
func (s *session) redrive(alive context.Context) error {
	s.faults.mended.Store(true)
	moved := 0
	for _, name := range s.ledger.names() {
		chosen := s.ledger.redrive(name)
		if len(chosen) == 0 {
			continue
		}
		n, err := s.bus.Redrive(alive, name, bus.Selection{
			Filter: func(p transports.Poisoned) bool { return chosen[p.Key()] },
		})
		moved += n
		if err != nil {
			return fmt.Errorf("redrive: %w", err)
		}
	}
	if moved == 0 {
		s.console.print("redriven: 0; nothing was poisoned that is mended by now\n")
		return nil
	}
	err := s.ledger.wait(alive, patience)
	handled, poisoned, lost := s.ledger.redriven()
	s.console.print("redriven: %d, mended by now; of these handled: %d, poisoned again: %d, lost: %d\n", moved, handled, poisoned, lost)
	return err
}

// cleanUp shuts the bus down, deletes the subscriptions of the run and closes the
// transport. An interrupt does not keep it from that.
func (s *session) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	var errs []error
	if s.bus != nil {
		var lost *bus.SubscriptionLostError // was told when it happened
		if err := s.bus.Shutdown(ctx); !errors.As(err, &lost) {
			errs = append(errs, err)
		}
		if ctx.Err() == nil {
			s.watching.Wait()
		}
		for _, name := range s.ledger.names() {
			if err := s.bus.RemoveSubscription(ctx, name); !errors.Is(err, transports.ErrUnsupported) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(append(errs, s.transport.Close())...)
}

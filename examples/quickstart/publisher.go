package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

const (
	// publishers is how many publishes are under way at a time. A broker confirms
	// many at once about as fast as one.
	publishers = 32

	// publishTime is how long a publish may take. It is longer than any wait for
	// room in a queue, whose handlers answer at once.
	publishTime = 30 * time.Second

	pingTime = 5 * time.Second
)

// publisher publishes events, many at a time, those of one partition key in the order
// of their lines.
type publisher struct {
	bus       *bus.Bus
	transport transports.Transport
	ledger    *ledger
	console   *console
	fail      context.CancelCauseFunc // ends the run: nothing more can be published

	slots   chan struct{} // one for each publish under way
	running sync.WaitGroup

	mu   sync.Mutex               // guards last
	last map[string]chan struct{} // of each partition key under way, the end of its newest publish
}

// send publishes l in the background. It waits for a free slot, and does nothing when
// stop ends before there is one. ctx is the context of the publish.
func (p *publisher) send(stop, ctx context.Context, l line) {
	select {
	case p.slots <- struct{}{}:
	case <-stop.Done():
		return
	}
	before, leave := p.queue(l.raw.Metadata.PartitionKey)
	p.running.Go(func() {
		defer func() { <-p.slots }()
		defer leave()
		if before != nil {
			<-before // ends: the first of a key waits for nobody
		}
		p.publish(ctx, l)
	})
}

// wait returns when nothing is under way.
func (p *publisher) wait() { p.running.Wait() }

// queue takes a place behind the events of a partition key, whose end is before, and
// returns how to leave it.
func (p *publisher) queue(key string) (before <-chan struct{}, leave func()) {
	if key == "" {
		return nil, func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.last[key]
	done := make(chan struct{})
	p.last[key] = done
	return before, func() {
		close(done)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.last[key] == done {
			delete(p.last, key)
		}
	}
}

func (p *publisher) publish(ctx context.Context, l line) {
	md := &l.raw.Metadata
	p.ledger.publishing(md)
	publishing, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	err := p.bus.PublishRaw(publishing, l.raw)
	if err == nil {
		p.ledger.confirmed(md)
		return
	}
	p.ledger.withdrawn(md)
	switch {
	case ctx.Err() != nil || errors.Is(err, bus.ErrClosed): // the run has failed, and whoever saw why tells it
	case p.refused(ctx, err):
		p.console.complain("line %d: %v", l.number, err)
	default:
		p.fail(fmt.Errorf("line %d: %w", l.number, err))
	}
}

// refused tells an event that the transport does not take from a transport that takes
// none.
func (p *publisher) refused(ctx context.Context, err error) bool {
	var invalid *events.ValidationError
	if errors.Is(err, transports.ErrTooLarge) || errors.As(err, &invalid) {
		return true
	}
	pinger, ok := p.transport.(transports.Pinger)
	if !ok || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, transports.ErrClosed) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	return pinger.Ping(ctx) == nil
}

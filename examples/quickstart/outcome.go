package main

import (
	"context"
	"fmt"
	"time"
)

// stalledError says that deliveries came to no end.
type stalledError struct {
	open     int
	patience time.Duration
}

func (e *stalledError) Error() string {
	return fmt.Sprintf("%d deliveries have come to no end, and nothing has happened for %v", e.open, e.patience)
}

// wait returns when every delivery has come to an end, when nothing has happened for
// the time of patience, or when ctx ends.
func (l *ledger) wait(ctx context.Context, patience time.Duration) error {
	watchdog := time.NewTicker(patience)
	defer watchdog.Stop()
	for {
		now := l.progress()
		if now.open == 0 {
			return nil
		}
		select {
		case <-l.settled:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-watchdog.C:
			if later := l.progress(); later.open > 0 && later.steps == now.steps {
				return &stalledError{open: later.open, patience: patience}
			}
		}
	}
}

// progress is how far a run is.
type progress struct {
	published int    // events
	refused   int    // events that could not be published
	expected  int    // deliveries
	open      int    // of those, not at an end yet
	steps     uint64 // grows with all that happens
}

func (l *ledger) progress() progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	return progress{published: l.published, refused: l.refused, expected: l.expected, open: l.open, steps: l.steps}
}

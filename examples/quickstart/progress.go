package main

import (
	"sync"
	"time"
)

// How often the progress is shown.
const (
	barInterval  = 100 * time.Millisecond
	lineInterval = time.Second
)

// showProgress shows the progress of l until stop is called: as a bar on a terminal,
// elsewhere as lines. all is how many deliveries there will be, or 0 when that shows
// only as the input is read.
func (c *console) showProgress(l *ledger, all int) (stop func()) {
	interval := lineInterval
	if c.bars {
		interval = barInterval
	}
	ended := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		var shown uint64
		for {
			select {
			case <-ended:
				c.endBar()
				return
			case <-ticker.C:
			}
			p := l.progress()
			switch {
			case c.bars:
				c.showBar(p.expected-p.open, max(all, p.expected))
			case p.steps != shown:
				c.print("  %d events published, %d of %d deliveries at an end\n", p.published, p.expected-p.open, max(all, p.expected))
			}
			shown = p.steps
		}
	})
	return func() {
		close(ended)
		running.Wait()
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress writes what a load reports: with a bar on a terminal, in lines elsewhere.
type progress struct {
	out io.Writer
	bar bool
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out}
	if f, ok := out.(*os.File); ok {
		p.bar = term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
	}
	return p
}

func (p *progress) print(format string, args ...any) { fmt.Fprintf(p.out, format, args...) }

// show shows how far a load is, until ctx ends. Each order has three steps: it is placed,
// reserved and confirmed.
func (p *progress) show(ctx context.Context, l *load) {
	interval := time.Second
	var bar *progressbar.ProgressBar
	if p.bar {
		interval = 200 * time.Millisecond
		bar = progressbar.NewOptions(3*l.cfg.load, progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription("orders × 3"),
			progressbar.OptionSetWidth(40), progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(false),
			progressbar.OptionClearOnFinish())
		defer func() { _ = bar.Clear() }() // nothing depends on it
	}
	for took := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(interval, 5*took)):
		}
		asked := time.Now()
		sum, err := l.reconcile(ctx)
		took = time.Since(asked)
		switch {
		case err != nil: // wait says it
		case bar != nil:
			_ = bar.Set(sum.orders + sum.reserved + sum.emails) // nothing depends on it
		default:
			p.print("  %d of %d orders placed, %d reserved, %d confirmed\n", sum.orders, l.cfg.load, sum.reserved, sum.emails)
		}
	}
}

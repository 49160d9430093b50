package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// result is what a check has found.
type result struct {
	status status
	output string
	began  time.Time
	took   time.Duration
}

// prober runs a check, not more often than it has to.
//
//	idle ──caller──► running ──Func returns──► idle, with a result to use for maxAge
//	                    └──timeout──► late: fails, without another call ──Func returns──► idle
type prober struct {
	Check
	maxAge time.Duration
	log    *slog.Logger

	mu       sync.Mutex    // guards what follows
	last     result        // the zero value before the first
	answered chan struct{} // closed when last is that of the call under way; nil: idle
	logged   status        // what the log says of the check
}

// result returns the result of the check: a fresh one, or that of a run, which it starts
// or joins. When ctx ends first the check counts as failed for that caller only.
func (p *prober) result(ctx context.Context) result {
	p.mu.Lock()
	if p.fresh() {
		defer p.mu.Unlock()
		return p.last
	}
	if p.answered == nil {
		p.start()
	}
	answered := p.answered
	p.mu.Unlock()
	select {
	case <-answered:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.last
	case <-ctx.Done(): // nobody reads it
		return result{status: fail, output: "was not waited for"}
	}
}

// fresh says whether the last result can be used again. Called with mu held.
func (p *prober) fresh() bool {
	return !p.last.began.IsZero() && time.Since(p.last.began.Add(p.last.took)) < p.maxAge
}

// start calls Func in goroutines of their own: several callers wait for it, none of which
// is to take it along when it leaves. Called with mu held.
func (p *prober) start() {
	answered := make(chan struct{})
	p.answered = answered
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), p.Timeout)
	inTime := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.settle(answered, began, Fail(fmt.Sprintf("has not answered within %v", p.Timeout), nil))
	})
	go func() {
		err := Fail("did not return", nil) // of a Func that ends its goroutine
		defer func() {
			if v := recover(); v != nil { // a probe must not end the process
				err = Fail("panicked", fmt.Errorf("%v\n%s", v, debug.Stack()))
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.answered = nil
			if inTime() {
				p.settle(answered, began, err)
			}
			cancel()
		}()
		err = p.Func(ctx)
	}()
}

// settle makes err the result of the check. Called with mu held.
func (p *prober) settle(answered chan struct{}, began time.Time, err error) {
	p.last = outcome(err)
	p.last.began, p.last.took = began, time.Since(began)
	if p.last.status != p.logged {
		p.logged = p.last.status
		if err != nil {
			p.log.Warn("health check does not pass", slog.String("status", p.last.status.String()), slog.Any("error", err))
		} else {
			p.log.Info("health check passes again")
		}
	}
	close(answered)
}

// outcome is the status and the output of an error.
func outcome(err error) result {
	if err == nil {
		return result{status: pass}
	}
	if o, ok := errors.AsType[*outputError](err); ok {
		return result{status: o.status, output: o.text}
	}
	return result{status: fail, output: "failed"}
}

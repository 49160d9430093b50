package middleware

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gotidings/tidings/internal/fingerprint"
)

// LogLimiterConfig configures a [LogLimiter].
type LogLimiterConfig struct {
	// Logger takes the lines that say how many were left out. nil means to discard.
	Logger *slog.Logger

	// Burst is how many lines of one fault are written in an Interval. 0 means 10; a
	// negative one means all.
	Burst int

	// Interval begins with the first line of a fault. 0 or less means 10 s.
	Interval time.Duration
}

// maxFaults bounds the faults that a [LogLimiter] tells apart at a time. All that are one
// too many count as one fault.
const maxFaults = 256

// LogLimiter keeps a storm of failures from becoming a storm of lines. Lines of one fault,
// which are those of one subscription, outcome and kind of error, are written up to a
// number in an interval. The rest is counted, and one line at the end of the interval says
// how many there were:
//
//	level=WARN msg="similar lines left out" lines=11990 interval=10s outcome=redelivered subscription=shop.mail fingerprint=1f0a3c77 error="…"
//
// Errors are of one kind when their Go types are the same and their texts are but for
// numbers, ids and what is quoted. It remembers up to 256 faults at a time. Its methods may
// be called concurrently.
type LogLimiter struct {
	cfg LogLimiterConfig

	mu     sync.Mutex // guards what follows
	faults map[fault]*faultLines
	closed bool
}

// fault is what lines have in common.
type fault struct{ subscription, outcome, fingerprint string }

// faultLines are the lines of a fault in the current interval.
type faultLines struct {
	since   time.Time
	written int
	left    int // out
	level   slog.Level
	err     error       // the last one
	end     *time.Timer // nil while none is left out
}

// NewLogLimiter makes a limiter. Close it in the end.
func NewLogLimiter(cfg LogLimiterConfig) *LogLimiter {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Burst == 0 {
		cfg.Burst = 10
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 10 * time.Second
	}
	return &LogLimiter{cfg: cfg, faults: make(map[fault]*faultLines)}
}

// Allow reports whether a line may be written: of a subscription, on an outcome, which is
// any text of few different ones, for an error, which may be nil. A nil limiter allows
// every line.
func (l *LogLimiter) Allow(level slog.Level, subscription, outcome string, err error) bool {
	if l == nil || l.cfg.Burst < 0 {
		return true
	}
	f := fault{subscription, outcome, kindOf(err)}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return true
	}
	lines, ok := l.faults[f]
	if !ok && len(l.faults) >= maxFaults {
		l.forget(now)
		if len(l.faults) >= maxFaults {
			f = fault{}
			lines, ok = l.faults[f]
		}
	}
	switch {
	case !ok:
		lines = &faultLines{since: now}
		l.faults[f] = lines
	case lines.end == nil && now.Sub(lines.since) >= l.cfg.Interval:
		*lines = faultLines{since: now}
	}
	if lines.written < l.cfg.Burst {
		lines.written++
		return true
	}
	lines.left++
	lines.level, lines.err = max(level, lines.level), err
	if lines.end == nil {
		lines.end = time.AfterFunc(l.cfg.Interval-now.Sub(lines.since), func() { l.endOf(f, lines) })
	}
	return false
}

// kindOf returns the fingerprint of an error, "" for nil.
func kindOf(err error) string {
	if err == nil {
		return ""
	}
	return fingerprint.Of(errorType(err), fmt.Sprint(err)) // which survives a nil pointer of a handler's error type
}

// forget forgets the faults whose interval has ended with nothing left out. Called with mu
// held.
func (l *LogLimiter) forget(now time.Time) {
	for f, lines := range l.faults {
		if lines.end == nil && now.Sub(lines.since) >= l.cfg.Interval {
			delete(l.faults, f)
		}
	}
}

// endOf ends the interval of a fault of which lines were left out.
func (l *LogLimiter) endOf(f fault, lines *faultLines) {
	l.mu.Lock()
	current := l.faults[f] == lines
	if current {
		delete(l.faults, f)
	}
	l.mu.Unlock()
	if current { // else Close has told it
		l.tell(f, lines)
	}
}

// tell says how many lines of a fault were left out. Nobody else has lines any more.
func (l *LogLimiter) tell(f fault, lines *faultLines) {
	attrs := []slog.Attr{slog.Int("lines", lines.left), slog.Duration("interval", l.cfg.Interval)}
	if f == (fault{}) {
		attrs = append(attrs, slog.String("outcome", "many different faults"))
	} else {
		attrs = append(attrs, slog.String("outcome", f.outcome), slog.String("subscription", f.subscription))
	}
	if f.fingerprint != "" {
		attrs = append(attrs, slog.String("fingerprint", f.fingerprint))
	}
	if lines.err != nil {
		attrs = append(attrs, slog.Any("error", lines.err))
	}
	l.cfg.Logger.LogAttrs(context.Background(), lines.level, "similar lines left out", attrs...)
}

// Close tells what was left out so far. From then on every line is allowed. It may be
// called more than once.
func (l *LogLimiter) Close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	rest := l.faults
	l.closed, l.faults = true, nil
	for _, lines := range rest {
		if lines.end != nil {
			lines.end.Stop() // one that has begun finds its fault gone
		}
	}
	l.mu.Unlock()
	for f, lines := range rest {
		if lines.left > 0 {
			l.tell(f, lines)
		}
	}
}

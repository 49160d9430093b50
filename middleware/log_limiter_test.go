package middleware_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/middleware"
)

// logBuffer is a buffer that timers write to as well.
type logBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// take returns what was written since the last time.
func (b *logBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

// limited makes a limiter and a logger that both write to a buffer, without times.
func limited(buf *logBuffer, burst int) (*middleware.LogLimiter, *slog.Logger) {
	log := slog.New(slog.NewTextHandler(buf, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return middleware.NewLogLimiter(middleware.LogLimiterConfig{Logger: log, Burst: burst, Interval: time.Minute}), log
}

// storm has n deliveries fail through Logging, with an error of their own each.
func storm(t *testing.T, buf *logBuffer, limiter *middleware.LogLimiter, log *slog.Logger, n int, fail func(i int) error) []string {
	t.Helper()
	i := 0
	h := stack(func(*message.Message) ([]*message.Message, error) { return nil, fail(i) },
		middleware.Logging(middleware.LoggingConfig{Subscription: subscription, Logger: log, Limiter: limiter}),
		middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: &store{}}))
	for i = range n {
		_, _ = h(newMessage(t.Context()))
	}
	return lines(buf)
}

func lines(buf *logBuffer) []string {
	text := strings.TrimSpace(buf.take())
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func TestAStormOfOneFaultIsAFewLinesAndASummary(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var buf logBuffer
		limiter, log := limited(&buf, 3)
		defer limiter.Close()
		fault := func(i int) error { return fmt.Errorf("order %d has no customer", i) }
		got := storm(t, &buf, limiter, log, 1000, fault)
		if len(got) != 3 || !strings.Contains(got[0], "outcome=poisoned") || !strings.Contains(got[2], "order 2 has") {
			t.Fatalf("%d lines, want the first 3:\n%s", len(got), strings.Join(got, "\n"))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		got = lines(&buf)
		if len(got) != 1 {
			t.Fatalf("%d lines at the end of the interval, want 1: %q", len(got), got)
		}
		for _, part := range []string{"level=ERROR", `msg="similar lines left out"`, "lines=997", "interval=1m0s", "outcome=poisoned", "subscription=" + subscription, "fingerprint=", `error="order 999 has no customer"`} {
			if !strings.Contains(got[0], part) {
				t.Errorf("the summary has no %s: %s", part, got[0])
			}
		}
		if got := storm(t, &buf, limiter, log, 4, fault); len(got) != 3 {
			t.Errorf("%d lines in the next interval, want 3 again", len(got))
		}
	})
}

func TestWhatIsNoStormIsLoggedInFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var buf logBuffer
		limiter, log := limited(&buf, 3)
		defer limiter.Close()
		for range 5 { // an interval apart from each other
			if got := storm(t, &buf, limiter, log, 3, func(int) error { return errBoom }); len(got) != 3 {
				t.Fatalf("%d lines, want 3", len(got))
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := lines(&buf); len(got) != 0 {
				t.Fatalf("a summary of nothing: %q", got)
			}
		}
	})
}

func TestFaultsAreLimitedByThemselves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var buf logBuffer
		limiter, log := limited(&buf, 1)
		defer limiter.Close()
		got := storm(t, &buf, limiter, log, 100, func(i int) error {
			return []error{errors.New("mail server away"), errors.New("no such customer")}[i%2]
		})
		if len(got) != 2 {
			t.Errorf("%d lines, want one for each of 2 faults: %q", len(got), got)
		}
		if !limiter.Allow(slog.LevelError, "another", "poisoned", errBoom) || !limiter.Allow(slog.LevelError, "another", "redelivered", errBoom) {
			t.Error("a fault of another subscription or outcome is held back")
		}
	})
}

func TestClosingTheLimiterTellsWhatWasLeftOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var buf logBuffer
		limiter, log := limited(&buf, 1)
		storm(t, &buf, limiter, log, 10, func(int) error { return errBoom })
		limiter.Close()
		limiter.Close()
		if got := lines(&buf); len(got) != 1 || !strings.Contains(got[0], "lines=9") {
			t.Errorf("%q, want one line with lines=9", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := lines(&buf); len(got) != 0 {
			t.Errorf("after Close: %q", got)
		}
		if got := storm(t, &buf, limiter, log, 3, func(int) error { return errBoom }); len(got) != 3 {
			t.Errorf("%d lines after Close, want all 3", len(got))
		}
	})
}

func TestManyDifferentFaultsTakeBoundedMemoryAndLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var buf logBuffer
		limiter, log := limited(&buf, 2)
		defer limiter.Close()
		name := func(i int) string { // letters, and no hexadecimal digits, which do not count
			return strings.Repeat("x", i/26+1) + string(rune('a'+i%26))
		}
		got := storm(t, &buf, limiter, log, 5000, func(i int) error { return errors.New("fault " + name(i)) })
		if len(got) > 256+3 {
			t.Errorf("%d lines of 5000 different faults, want no more than 259", len(got))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		summary := lines(&buf)
		if len(summary) != 1 || !strings.Contains(summary[0], "many different faults") {
			t.Errorf("%q, want one summary of the many", summary)
		}
		// What has gone quiet makes room.
		if got := storm(t, &buf, limiter, log, 2, func(int) error { return errors.New("a new fault") }); len(got) != 2 {
			t.Errorf("%d lines, want 2", len(got))
		}
	})
}

func TestDebugLinesAndANegativeBurstAreNotLimited(t *testing.T) {
	t.Parallel()
	var buf logBuffer
	limiter, log := limited(&buf, 1)
	defer limiter.Close()
	if got := storm(t, &buf, limiter, log, 20, func(int) error { return nil }); len(got) != 20 {
		t.Errorf("%d lines of handled events at the debug level, want 20", len(got))
	}
	all, log := limited(&buf, -1)
	defer all.Close()
	if got := storm(t, &buf, all, log, 20, func(int) error { return errBoom }); len(got) != 20 {
		t.Errorf("%d lines, want 20", len(got))
	}
}

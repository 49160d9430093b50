package eventstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gotidings/tidings/transports"
)

// In the background, a store catches up at its interval, and prunes once an hour, after it has
// caught up; what fails is told and tried again.
func TestUpkeep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var mu sync.Mutex // guards what follows: the work wakes up by itself
		var caughtUp int
		var pruned []string
		var behind error
		var log bytes.Buffer
		u := upkeep{
			every: time.Minute,
			catchUp: func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				caughtUp++
				return behind
			},
			prune: func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				pruned = append(pruned, fmt.Sprint(time.Since(began)))
				return errors.New("no rights")
			},
			log: slog.New(slog.NewTextHandler(locked{&mu, &log}, nil)),
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			u.run(ctx)
		}()
		pass := func(d time.Duration) {
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
		}
		mu.Lock()
		pass(0)
		if caughtUp != 1 {
			t.Errorf("caught up %d times at once; want 1", caughtUp)
		}
		pass(59*time.Minute + time.Second)
		if caughtUp != 60 || pruned != nil {
			t.Errorf("after 59 minutes: caught up %d times, pruned at %q; want 60 and never", caughtUp, pruned)
		}
		pass(2 * time.Hour)
		if want := []string{"1h0m0s", "2h0m0s"}; !slices.Equal(pruned, want) {
			t.Errorf("pruned at %q; want %q", pruned, want)
		}
		if n := strings.Count(log.String(), "no rights"); n != 2 {
			t.Errorf("told %d times:\n%s", n, &log)
		}

		behind = errors.New("the database is down")
		pass(90 * time.Minute)
		if len(pruned) != 2 {
			t.Errorf("pruned at %q, when it could not catch up", pruned)
		}
		behind = nil
		pass(time.Minute)
		if len(pruned) != 3 {
			t.Errorf("pruned at %q; want it after it has caught up again", pruned)
		}
		mu.Unlock()
		stop()
		<-ended
	})
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// It ends with the log, without a word.
func TestUpkeepEndsWithTheLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	u := upkeep{
		every:   time.Hour,
		catchUp: func(context.Context) error { return fmt.Errorf("sql: %w", transports.ErrClosed) },
		log:     slog.New(slog.NewTextHandler(&log, nil)),
	}
	u.run(t.Context())
	if log.Len() > 0 {
		t.Errorf("told %s", &log)
	}
}

package health_test

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gotidings/tidings/health"
)

// counted returns a check that counts its calls.
func counted(calls *atomic.Int64, f func(context.Context) error) health.Check {
	return health.Check{Name: "a", Func: func(ctx context.Context) error {
		calls.Add(1)
		return f(ctx)
	}}
}

func asleep(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func TestProbeStormMakesOneCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		h := newHandler(t, health.Config{Checks: []health.Check{counted(&calls, asleep(time.Second))}})
		storm := func() {
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() { want(t, h, "/readyz", http.StatusOK, "pass") })
			}
			all.Wait()
		}
		storm() // shares one that is under way
		storm() // and its result
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
		time.Sleep(health.DefaultMaxAge - 1)
		storm()
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls within MaxAge, want 1", n)
		}
		time.Sleep(time.Nanosecond)
		storm()
		if n := calls.Load(); n != 2 {
			t.Errorf("%d calls after MaxAge, want 2", n)
		}
	})
}

func TestChecksRunAtTheSameTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		list := []health.Check{
			{Name: "a", Func: asleep(time.Second)},
			{Name: "b", Func: asleep(time.Second)},
			{Name: "c", Func: asleep(time.Second)},
		}
		began := time.Now()
		a := want(t, newHandler(t, checks(list...)), "/readyz?verbose", http.StatusOK, "pass")
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
		if ms := one(t, a, "b:responseTime").ObservedValue; ms == nil || *ms != 1000 {
			t.Errorf("response time: %v", ms)
		}
	})
}

func TestEachCheckHasItsTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, health.Config{Timeout: 3 * time.Second, Checks: []health.Check{
			{Name: "slow", Func: asleep(time.Hour)},
			{Name: "slower", Func: asleep(time.Hour), Timeout: 5 * time.Second},
			{Name: "quick", Func: asleep(4 * time.Second), Timeout: 5 * time.Second},
		}})
		for range 3 {
			began := time.Now()
			a := want(t, h, "/readyz", http.StatusServiceUnavailable, "fail")
			if took := time.Since(began); took != 5*time.Second {
				t.Errorf("took %v", took)
			}
			for name, output := range map[string]string{"slow": "has not answered within 3s", "slower": "has not answered within 5s", "quick": ""} {
				if d := one(t, a, name); d.Output != output {
					t.Errorf("%s: %+v", name, d)
				}
			}
			time.Sleep(time.Minute)
		}
	})
}

// A driver that hangs must not collect a goroutine for each probe.
func TestCheckThatDoesNotReturnIsNotCalledAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		release := make(chan struct{})
		h := newHandler(t, checks(counted(&calls, func(context.Context) error {
			<-release
			return nil
		})))
		for range 3 {
			a := want(t, h, "/readyz", http.StatusServiceUnavailable, "fail")
			if d := one(t, a, "a"); d.Output != "has not answered within 2s" {
				t.Errorf("%+v", d)
			}
			time.Sleep(time.Minute)
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
		close(release)
		synctest.Wait()
		want(t, h, "/readyz", http.StatusOK, "pass") // asked anew
		if n := calls.Load(); n != 2 {
			t.Errorf("%d calls, want 2", n)
		}
	})
}

func TestCallerThatLeavesDoesNotEndTheCheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		h := newHandler(t, checks(counted(&calls, asleep(time.Second))))
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			request(ctx, h, http.MethodGet, "/readyz")
		}()
		synctest.Wait()
		cancel()
		<-left
		began := time.Now()
		want(t, h, "/readyz", http.StatusOK, "pass")
		if took := time.Since(began); took != time.Second || calls.Load() != 1 {
			t.Errorf("took %v and %d calls", took, calls.Load())
		}
	})
}

func TestCheckThatEndsItsGoroutineFails(t *testing.T) {
	t.Parallel()
	h := newHandler(t, checks(health.Check{Name: "a", Func: func(context.Context) error {
		runtime.Goexit()
		return nil
	}}))
	a := want(t, h, "/readyz", http.StatusServiceUnavailable, "fail")
	if d := one(t, a, "a"); d.Output != "did not return" {
		t.Errorf("%+v", d)
	}
}

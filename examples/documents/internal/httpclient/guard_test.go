package httpclient

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

const (
	closed   = circuitbreaker.ClosedState
	open     = circuitbreaker.OpenState
	halfOpen = circuitbreaker.HalfOpenState
)

// noRetry has each call make one try.
func noRetry(c *Config) { c.MaxRetries = -1 }

func TestBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen states
		s := serve(down, cut, hanging, down, down, down, fine)
		c := client(t, s, noRetry, func(c *Config) { c.OnBreaker = seen.note })
		for range 5 {
			if _, err := get(t.Context(), c); err == nil {
				t.Fatal("no error")
			}
		}
		seen.want(t, open)

		time.Sleep(10 * time.Second)
		_, err := get(t.Context(), c)
		wantKind(t, err, ErrUnavailable)
		e := asError(t, err)
		if !errors.Is(err, circuitbreaker.ErrOpen) || e.Tries != 0 || e.RetryAfter != 20*time.Second || s.tries() != 5 {
			t.Errorf("error is %v, %+v, after %d tries", err, e, s.tries())
		}

		time.Sleep(20 * time.Second) // a trial that fails
		_, err = get(t.Context(), c)
		wantKind(t, err, ErrUnavailable)
		seen.want(t, open, halfOpen, open)

		time.Sleep(30 * time.Second) // one that does not
		if _, err := get(t.Context(), c); err != nil {
			t.Error(err)
		}
		seen.want(t, open, halfOpen, open, halfOpen, closed)
		if c.Breaker().State() != closed {
			t.Errorf("breaker is %v", c.Breaker().State())
		}
	})
}

func TestAnOpenCircuitIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := serve(down)
		c := client(t, s)
		for range 2 { // the second one sees it open after its first try
			_, err := get(t.Context(), c)
			wantKind(t, err, ErrUnavailable)
		}
		if took := time.Since(s.t0); s.tries() != 5 || took > 20*time.Second {
			t.Errorf("%d tries in %v, want 5 in 16 s or a quarter more", s.tries(), took)
		}
	})
}

func TestAnswersKeepTheCircuitClosed(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]answer{
		"refused": {status: 404}, "limited": {status: 429}, "malformed": {status: 200, body: "?"}, "too long": {status: 200, body: string(make([]byte, 2<<20))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := client(t, serve(a), noRetry)
				for range 10 {
					if _, err := get(t.Context(), c); errors.Is(err, circuitbreaker.ErrOpen) || err == nil {
						t.Fatalf("error is %v", err)
					}
				}
			})
		})
	}
}

// Callers who go away have seen nothing: they neither open the circuit nor make up for
// failures.
func TestCallersWhoGoSayNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := client(t, serve(down, down, down, down, hanging, hanging, hanging, hanging, hanging, hanging, down), noRetry)
		for range 4 {
			_, err := get(t.Context(), c)
			wantKind(t, err, ErrUnavailable)
		}
		for range 6 {
			leave(t, c)
		}
		if state := c.Breaker().State(); state != closed {
			t.Errorf("breaker is %v, want it closed", state)
		}
		_, err := get(t.Context(), c)
		wantKind(t, err, ErrUnavailable)
		if state := c.Breaker().State(); state != open {
			t.Errorf("breaker is %v after the fifth failure, want it open", state)
		}
	})
}

// leave makes a call and goes away after a second.
func leave(t *testing.T, c *Client) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(time.Second, cancel).Stop()
	_, err := get(ctx, c)
	wantKind(t, err, nil)
}

// A trial whose caller goes away gives its permit back, and closes nothing.
func TestATrialWhoseCallerGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := client(t, serve(down, down, down, down, down, hanging, fine), noRetry)
		for range 5 {
			_, err := get(t.Context(), c)
			wantKind(t, err, ErrUnavailable)
		}
		time.Sleep(30 * time.Second)
		leave(t, c)
		if state := c.Breaker().State(); state != open {
			t.Errorf("breaker is %v, want it open", state)
		}
		time.Sleep(30 * time.Second)
		if _, err := get(t.Context(), c); err != nil {
			t.Error(err)
		}
	})
}

// What began before the circuit opened says nothing of how things are now.
func TestALateSuccessDoesNotCloseTheCircuit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := serve(answer{status: 200, body: "{}", after: 35 * time.Second}, down, down, down, down, down, hanging)
		c := client(t, s, noRetry, func(c *Config) { c.Timeout, c.TryTimeout = time.Minute, time.Minute })
		late := make(chan error, 1)
		go func() { _, err := get(t.Context(), c); late <- err }()
		synctest.Wait()
		for range 5 {
			_, err := get(t.Context(), c)
			wantKind(t, err, ErrUnavailable)
		}
		time.Sleep(31 * time.Second)
		trial := make(chan error, 1)
		go func() { _, err := get(t.Context(), c); trial <- err }()
		if err := <-late; err != nil {
			t.Fatal(err)
		}
		if state := c.Breaker().State(); state != halfOpen {
			t.Errorf("breaker is %v, want it half-open while the trial goes on", state)
		}
		wantKind(t, <-trial, ErrTimedOut)
	})
}

func TestBulkhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := serve(answer{status: 200, body: "{}", after: 5 * time.Second})
		c := client(t, s, func(c *Config) { c.MaxConcurrent = 2 })
		results := make(chan error, 2)
		for range 2 {
			go func() { _, err := get(t.Context(), c); results <- err }()
		}
		synctest.Wait()
		_, err := get(t.Context(), c)
		wantKind(t, err, ErrUnavailable)
		if !errors.Is(err, bulkhead.ErrFull) || time.Since(s.t0) != time.Second || s.tries() != 2 {
			t.Errorf("error is %v after %v and %d tries", err, time.Since(s.t0), s.tries())
		}
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if _, err := get(t.Context(), c); err != nil {
			t.Errorf("there is room again: %v", err)
		}
	})
}

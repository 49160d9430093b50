package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// dependency is a handler of something that is down until it is mended.
type dependency struct {
	mu     sync.Mutex // guards what follows
	err    error      // nil: it works
	called []string   // ids of the messages
	hold   chan struct{}
}

func (d *dependency) handle(msg *message.Message) ([]*message.Message, error) {
	d.mu.Lock()
	d.called = append(d.called, msg.UUID)
	err, hold := d.err, d.hold
	d.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return nil, err
}

func (d *dependency) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *dependency) calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.called...)
}

// circuit is a breaker with its gate, between a gate and a handler.
type circuit struct {
	breaker  circuitbreaker.CircuitBreaker[any]
	cfg      middleware.CircuitBreakerConfig
	gate     middleware.Gate
	stopping chan struct{}
	states   []circuitbreaker.State
}

// newCircuit makes one that opens at the first failure, for a minute.
func newCircuit(build func(circuitbreaker.Builder[any])) *circuit {
	b := circuitbreaker.NewBuilder[any]().WithDelay(time.Minute)
	if build != nil {
		build(b)
	}
	c := &circuit{breaker: b.Build(), stopping: make(chan struct{})}
	c.cfg = middleware.CircuitBreakerConfig{
		Breaker: c.breaker, Gate: &c.gate, Stopping: c.stopping,
		OnChange: func(s circuitbreaker.State) { c.states = append(c.states, s) },
	}
	return c
}

// around puts the gate and the circuit around a handler, with middleware in between.
func (c *circuit) around(h message.HandlerFunc, between ...message.HandlerMiddleware) message.HandlerFunc {
	mws := append([]message.HandlerMiddleware{c.gate.Middleware(c.stopping)}, between...)
	return stack(h, append(mws, middleware.NewCircuitBreaker(c.cfg).Middleware)...)
}

func numbered(ctx context.Context, n int) *message.Message {
	msg := newMessage(ctx)
	msg.UUID = fmt.Sprint("event-", n)
	return msg
}

func TestOpenCircuitHoldsMessagesBackUntilATrialSucceeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(nil)
		d := &dependency{err: errBoom}
		h := c.around(d.handle)
		_, err := h(numbered(t.Context(), 1))
		wantErrorIs(t, err, errBoom)
		equal(t, "verdict of what opened it", middleware.VerdictOf(err).Kind, middleware.KindRetry)
		equalSlices(t, "reasons", c.gate.Reasons(), []string{"circuit is open"})

		var held []*message.Message
		var done []<-chan error
		for i := range 3 {
			held = append(held, numbered(t.Context(), i+2))
			done = append(done, deliver(h, held[i]))
		}
		d.set(nil)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		equalSlices(t, "calls while open", d.calls(), []string{"event-1"})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for i := range done {
			equal(t, "error", <-done[i], nil)
			wantHeader(t, held[i], transports.HeaderAttempts, "")
		}
		equal(t, "calls", len(d.calls()), 4)
		equal(t, "reasons", len(c.gate.Reasons()), 0)
		equalSlices(t, "states", c.states, []circuitbreaker.State{
			circuitbreaker.OpenState, circuitbreaker.HalfOpenState, circuitbreaker.ClosedState,
		})
	})
}

// An outage would use up the retries of whoever has to try.
func TestTrialThatFailsIsPutOffAndNotCounted(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"failure": errBoom, "RetryAfter": middleware.RetryAfter(time.Hour, errBoom)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCircuit(nil)
				d := &dependency{err: failure}
				requeued := &store{}
				h := c.around(d.handle,
					middleware.Redelivery(middleware.RedeliveryConfig{Subscription: subscription, Requeuer: requeued, Delays: []time.Duration{time.Second}}),
					middleware.Retry(middleware.RetryConfig{Attempts: 5}))
				c.breaker.Open()
				for i := range 3 {
					msg := numbered(t.Context(), i)
					_, err := h(msg)
					equal(t, "error", err, nil)
					equal(t, "calls", len(d.calls()), i+1)
					wantHeader(t, msg, transports.HeaderAttempts, "")
					wantHeader(t, msg, transports.HeaderRedeliveries, "")
					equal(t, "delay", requeued.writes[i].delay, time.Minute)
				}
			})
		})
	}
}

func TestHalfOpenCircuitLetsItsPermittedNumberThrough(t *testing.T) {
	t.Parallel()
	for name, closes := range map[string]bool{"success": true, "failure": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCircuit(func(b circuitbreaker.Builder[any]) { b.WithSuccessThreshold(3) })
				d := &dependency{hold: make(chan struct{})}
				if !closes {
					d.err = errBoom
				}
				var passed atomic.Int32 // the gate, where others would claim them
				h := c.around(d.handle, func(h message.HandlerFunc) message.HandlerFunc {
					return func(msg *message.Message) ([]*message.Message, error) {
						passed.Add(1)
						return h(msg)
					}
				})
				c.breaker.Open()
				var done []<-chan error
				for i := range 10 {
					done = append(done, deliver(h, numbered(t.Context(), i)))
				}
				time.Sleep(90 * time.Second)
				synctest.Wait()
				equal(t, "calls at a time", len(d.calls()), 3)
				if n := passed.Load(); n > 3+1 { // and the one that finds that there is no permit
					t.Errorf("%d have passed the gate", n)
				}
				equal(t, "reasons", len(c.gate.Reasons()), 1)
				close(d.hold)
				synctest.Wait()
				if closes {
					equal(t, "calls", len(d.calls()), 10)
					for i := range done {
						equal(t, "error", <-done[i], nil)
					}
					return
				}
				equal(t, "calls", len(d.calls()), 3)
				close(c.stopping)
				put, back := 0, 0
				for i := range done {
					switch err := <-done[i]; {
					case errors.Is(err, middleware.ErrInterrupted):
						back++
					case middleware.VerdictOf(err).Kind == middleware.KindDefer:
						put++
					}
				}
				equal(t, "put off", put, 3)
				equal(t, "back", back, 7)
			})
		})
	}
}

func TestMessagesBetweenTwoTriesWaitForTheCircuit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(nil)
		d := &dependency{err: errBoom, hold: make(chan struct{})}
		h := c.around(d.handle, middleware.Retry(middleware.RetryConfig{Attempts: 3, MinDelay: 1, MaxDelay: 1}))
		var msgs [4]*message.Message
		var done [4]<-chan error
		for i := range msgs {
			msgs[i] = numbered(t.Context(), i)
			done[i] = deliver(h, msgs[i])
		}
		synctest.Wait()
		close(d.hold) // so that all fail, and the first one opens the circuit
		time.Sleep(30 * time.Second)
		synctest.Wait()
		equal(t, "calls", len(d.calls()), 4)
		d.set(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		for i := range msgs {
			equal(t, "error", <-done[i], nil)
			wantHeader(t, msgs[i], transports.HeaderAttempts, "1")
		}
		equal(t, "reasons", len(c.gate.Reasons()), 0)
	})
}

// While it waited, the circuit opened.
func TestMessageThatWaitedForASlotIsNotTriedWhenTheCircuitHasOpened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(nil)
		d := &dependency{err: errBoom, hold: make(chan struct{})}
		cb := middleware.NewCircuitBreaker(c.cfg)
		h := stack(d.handle, c.gate.Middleware(nil), cb.Wait, middleware.Bulkhead(bulkhead.New[any](1)), cb.Guard)
		first := deliver(h, numbered(t.Context(), 1))
		synctest.Wait()
		second := numbered(t.Context(), 2)
		waiting := deliver(h, second)
		synctest.Wait()
		close(d.hold)
		wantErrorIs(t, <-first, errBoom)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		equalSlices(t, "calls", d.calls(), []string{"event-1"})
		d.set(nil)
		equal(t, "error", <-waiting, nil)
		equalSlices(t, "calls", d.calls(), []string{"event-1", "event-2"})
	})
}

// They say something of the event, and nothing of the dependency.
func TestVerdictsAndInterruptionsAreNeitherFailureNorSuccessOfTheDependency(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(context.Background())
	end()
	for name, tt := range map[string]struct {
		err error
		ctx context.Context //nolint:containedctx // of the message
	}{
		"Permanent":          {middleware.Permanent(errBoom), context.Background()},
		"Discard":            {middleware.Discard(errBoom), context.Background()},
		"Defer":              {middleware.Defer(time.Second, errBoom), context.Background()},
		"interrupted":        {middleware.ErrInterrupted, context.Background()},
		"end of the context": {errBoom, ended},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCircuit(nil)
				d := &dependency{err: tt.err}
				h := middleware.NewCircuitBreaker(c.cfg).Middleware(d.handle)
				_, err := h(newMessage(tt.ctx))
				equal(t, "error", err, tt.err)
				equal(t, "state", c.breaker.State(), circuitbreaker.ClosedState)
				equal(t, "recorded", c.breaker.Metrics().Executions(), 0)

				c.breaker.HalfOpen() // with one permit, which must not be lost
				for range 3 {
					_, err = h(newMessage(tt.ctx))
					equal(t, "error of a trial", err, tt.err)
					equal(t, "state", c.breaker.State(), circuitbreaker.HalfOpenState)
				}
				d.set(nil)
				_, err = h(newMessage(t.Context()))
				equal(t, "error", err, nil)
				equal(t, "state", c.breaker.State(), circuitbreaker.ClosedState)
			})
		})
	}
}

func TestBreakersOwnConditionsSayWhatIsAFailure(t *testing.T) {
	t.Parallel()
	errDown := errors.New("down")
	for err, want := range map[error]circuitbreaker.State{errDown: circuitbreaker.OpenState, errBoom: circuitbreaker.ClosedState} {
		c := newCircuit(func(b circuitbreaker.Builder[any]) { b.HandleErrors(errDown) })
		_, got := c.around((&dependency{err: err}).handle)(newMessage(t.Context()))
		equal(t, "error", got, err)
		equal(t, "state", c.breaker.State(), want)
	}
}

func TestPanicOfATrialReturnsItsPermit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(nil)
		calls := 0
		h := middleware.Recover(c.around(func(*message.Message) ([]*message.Message, error) {
			if calls++; calls == 1 {
				panic("boom")
			}
			return nil, nil
		}))
		c.breaker.HalfOpen()
		_, err := h(newMessage(t.Context()))
		if _, ok := errors.AsType[*middleware.PanicError](err); !ok {
			t.Errorf("error is %v", err)
		}
		equal(t, "state", c.breaker.State(), circuitbreaker.OpenState)
		_, err = h(newMessage(t.Context()))
		equal(t, "error", err, nil)
		equal(t, "state", c.breaker.State(), circuitbreaker.ClosedState)
	})
}

func TestOutcomeFromBeforeTheCircuitOpenedIsNoTrial(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(nil)
		d := &dependency{hold: make(chan struct{})}
		done := deliver(c.around(d.handle), newMessage(t.Context()))
		synctest.Wait()
		c.breaker.Open()
		c.breaker.HalfOpen()
		close(d.hold)
		equal(t, "error", <-done, nil)
		equal(t, "state", c.breaker.State(), circuitbreaker.HalfOpenState)
	})
}

// What the gate lets through can end before it comes to the circuit.
func TestDuplicateIsNoTrialAndTheNextMessageIsOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(nil)
		d := &dependency{}
		seen, err := middleware.NewMemoryDedup(middleware.MemoryDedupConfig{})
		equal(t, "error", err, nil)
		h := c.around(d.handle, middleware.Dedup(middleware.DedupConfig{Subscription: subscription, Store: seen}))
		_, err = h(numbered(t.Context(), 1))
		equal(t, "error", err, nil)
		c.breaker.Open()
		var done []<-chan error
		for range 3 {
			done = append(done, deliver(h, numbered(t.Context(), 1)))
			synctest.Wait()
		}
		done = append(done, deliver(h, numbered(t.Context(), 2)))
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		for i := range done {
			equal(t, "error", <-done[i], nil)
		}
		equalSlices(t, "calls", d.calls(), []string{"event-1", "event-2"})
		equal(t, "state", c.breaker.State(), circuitbreaker.ClosedState)
	})
}

func TestMessagesThatWaitForACircuitGoBack(t *testing.T) {
	t.Parallel()
	for reason, stop := range map[string]func(c *circuit, cancel context.CancelFunc){
		"stopping":           func(c *circuit, _ context.CancelFunc) { close(c.stopping) },
		"end of the context": func(_ *circuit, cancel context.CancelFunc) { cancel() },
		"hold limit":         func(*circuit, context.CancelFunc) { time.Sleep(11 * time.Minute) },
	} {
		for place, gated := range map[string]bool{"at the gate": true, "between tries": false} {
			t.Run(reason+" "+place, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := newCircuit(func(b circuitbreaker.Builder[any]) { b.WithDelay(time.Hour) })
					if !gated {
						c.cfg.Gate = nil
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					c.breaker.Open()
					done := deliver(stack(c.around(failing(0).handle), middleware.HoldLimit(10*time.Minute)), newMessage(ctx))
					synctest.Wait()
					stop(c, cancel)
					synctest.Wait()
					select {
					case err := <-done:
						wantErrorIs(t, err, middleware.ErrInterrupted)
					default:
						t.Fatal("it waits on")
					}
				})
			})
		}
	}
}

func TestCircuitThatSomebodyElseClosesIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(func(b circuitbreaker.Builder[any]) { b.WithDelay(time.Hour) })
		h := c.around(failing(0).handle)
		c.breaker.Open()
		done := deliver(h, newMessage(t.Context()))
		synctest.Wait()
		start := time.Now()
		c.breaker.Close()
		equal(t, "error", <-done, nil)
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v", took)
		}
		c.breaker.Open()
		_ = deliver(h, newMessage(t.Context()))
		synctest.Wait()
		close(c.stopping)
		synctest.Wait()
		c.breaker.Close()
		equal(t, "reasons with nobody there to notice", len(c.gate.Reasons()), 0)
	})
}

func TestPauseHoldsWhatACircuitWouldLetThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(nil)
		d := &dependency{}
		h := c.around(d.handle)
		c.breaker.Open()
		done := deliver(h, newMessage(t.Context()))
		synctest.Wait()
		release := c.gate.Hold("paused")
		time.Sleep(time.Hour)
		equal(t, "calls", len(d.calls()), 0)
		release()
		equal(t, "error", <-done, nil)
	})
}

func TestNewCircuitBreakerNeedsABreaker(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	middleware.NewCircuitBreaker(middleware.CircuitBreakerConfig{})
}

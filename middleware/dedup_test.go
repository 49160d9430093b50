package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

var orderKey = middleware.DedupKey{Subscription: subscription, Event: transports.EventKey{Source: "shop", ID: "event-1"}}

// dedup is Dedup with its reports.
type dedup struct {
	store      middleware.DedupStore
	duplicates int
	reports    []error
}

func (d *dedup) wrap(h message.HandlerFunc) message.HandlerFunc {
	return middleware.Dedup(middleware.DedupConfig{
		Subscription: subscription,
		Store:        d.store,
		OnDuplicate:  func(*message.Message) { d.duplicates++ },
		OnStoreError: func(err error) { d.reports = append(d.reports, err) },
	})(h)
}

func memoryDedup(t *testing.T) *dedup {
	t.Helper()
	s, err := middleware.NewMemoryDedup(middleware.MemoryDedupConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return &dedup{store: s}
}

// dedups are of a store whose claims last and of one whose claims run out.
var dedups = map[string]func(t *testing.T) *dedup{
	"memory": memoryDedup,
	"leases": func(*testing.T) *dedup { return &dedup{store: newLeases(time.Minute)} },
}

func TestDedupHandlesAnEventOnce(t *testing.T) {
	t.Parallel()
	for name, newDedup := range dedups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDedup(t)
				handler := failing(0)
				h := d.wrap(handler.handle)
				for range 3 {
					_, err := h(newMessage(t.Context()))
					equal(t, "error", err, nil)
				}
				equal(t, "calls", handler.calls, 1)
				equal(t, "duplicates", d.duplicates, 2)
			})
		})
	}
}

func TestDedupTellsEventsApartBySubscriptionSourceAndID(t *testing.T) {
	t.Parallel()
	d := memoryDedup(t)
	handler := failing(0)
	first, other := d.wrap(handler.handle), middleware.Dedup(middleware.DedupConfig{Subscription: "other", Store: d.store})(handler.handle)
	deliveries := []func(msg *message.Message) message.HandlerFunc{
		func(*message.Message) message.HandlerFunc { return first },
		func(*message.Message) message.HandlerFunc { return other },
		func(msg *message.Message) message.HandlerFunc { msg.Metadata["ce_source"] = "billing"; return first },
		func(msg *message.Message) message.HandlerFunc { msg.UUID = "event-2"; return first },
	}
	for _, change := range deliveries {
		msg := newMessage(t.Context())
		_, err := change(msg)(msg)
		equal(t, "error", err, nil)
	}
	equal(t, "calls", handler.calls, len(deliveries))
}

func TestDedupHandlesEveryMessageWithoutAnID(t *testing.T) {
	t.Parallel()
	d := memoryDedup(t)
	handler := failing(0)
	for range 2 {
		msg := newMessage(t.Context())
		msg.UUID = ""
		_, err := d.wrap(handler.handle)(msg)
		equal(t, "error", err, nil)
	}
	equal(t, "calls", handler.calls, 2)
}

// Nothing may be taken for a duplicate that was not handled.
func TestDedupGivesItsClaimUpHoweverTheHandlerFails(t *testing.T) {
	t.Parallel()
	for outcome, end := range map[string]func() error{
		"error":  func() error { return errBoom },
		"panic":  func() error { panic("boom") },
		"Goexit": func() error { runtime.Goexit(); return nil },
	} {
		for name, newDedup := range dedups {
			t.Run(name+", "+outcome, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					d := newDedup(t)
					done := make(chan struct{})
					go func() {
						defer close(done)
						defer func() { _ = recover() }()
						_, err := d.wrap(func(*message.Message) ([]*message.Message, error) { return nil, end() })(newMessage(t.Context()))
						equal(t, "error", err, errBoom)
					}()
					<-done
					handler := failing(0)
					start := time.Now()
					_, err := d.wrap(handler.handle)(newMessage(t.Context()))
					equal(t, "error", err, nil)
					equal(t, "calls", handler.calls, 1)
					equal(t, "waited", time.Since(start), 0)
				})
			})
		}
	}
}

// The router publishes what a handler returns, and nacks the message when it can't.
func TestDedupDoesNotMarkAnEventWhoseOutputIsStillToBePublished(t *testing.T) {
	t.Parallel()
	d := memoryDedup(t)
	h := d.wrap(func(*message.Message) ([]*message.Message, error) {
		return []*message.Message{newMessage(t.Context())}, nil
	})
	for range 2 {
		out, err := h(newMessage(t.Context()))
		equal(t, "error", err, nil)
		equal(t, "messages", len(out), 1)
	}
}

func TestDedupWaitsForTheOtherCopyAndDropsItsOwn(t *testing.T) {
	t.Parallel()
	for name, newDedup := range dedups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDedup(t)
				first := deliver(d.wrap(taking(100*time.Millisecond)), newMessage(t.Context()))
				synctest.Wait()
				start := time.Now()
				_, err := d.wrap(failing(1).handle)(newMessage(t.Context()))
				equal(t, "error", err, nil)
				equal(t, "duplicates", d.duplicates, 1)
				if waited := time.Since(start); waited < 100*time.Millisecond || waited > 250*time.Millisecond {
					t.Errorf("waited %v for a handler of 100ms", waited)
				}
				equal(t, "error of the other", <-first, nil)
			})
		})
	}
}

// The other copy may fail yet, so that this one is the only one left.
func TestDedupDefersACopyOfWhatIsBeingHandled(t *testing.T) {
	t.Parallel()
	for name, newDedup := range dedups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDedup(t)
				first := deliver(d.wrap(taking(time.Hour)), newMessage(t.Context()))
				synctest.Wait()
				start := time.Now()
				handler := failing(0)
				_, err := d.wrap(handler.handle)(newMessage(t.Context()))
				equal(t, "verdict", middleware.VerdictOf(err), middleware.Verdict{Kind: middleware.KindDefer, Delay: 2 * time.Second})
				equal(t, "calls", handler.calls, 0)
				if waited := time.Since(start); waited < 250*time.Millisecond || waited > 500*time.Millisecond {
					t.Errorf("waited %v", waited)
				}
				equal(t, "error of the other", <-first, nil)
			})
		})
	}
}

func TestDedupStopsWaitingWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := memoryDedup(t)
		first := deliver(d.wrap(taking(time.Hour)), newMessage(t.Context()))
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		_, err := d.wrap(failing(0).handle)(newMessage(ctx))
		wantErrorIs(t, err, middleware.ErrInterrupted)
		equal(t, "error of the other", <-first, nil)
	})
}

func TestDedupDefersWhatItCannotClaim(t *testing.T) {
	t.Parallel()
	s := newLeases(time.Minute)
	s.fail("claim", errBoom)
	d := &dedup{store: s}
	handler := failing(0)
	_, err := d.wrap(handler.handle)(newMessage(t.Context()))
	equal(t, "verdict", middleware.VerdictOf(err).Kind, middleware.KindDefer)
	wantErrorIs(t, err, errBoom)
	equal(t, "calls", handler.calls, 0)
	equal(t, "reports", len(d.reports), 1)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = d.wrap(handler.handle)(newMessage(ctx))
	wantErrorIs(t, err, middleware.ErrInterrupted)
	equal(t, "reports", len(d.reports), 1) // the shutdown is no fault of the store
}

func TestDedupAcknowledgesWhatItCannotMark(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeases(time.Minute)
		s.fail("complete", errBoom)
		d := &dedup{store: s}
		_, err := d.wrap(failing(0).handle)(newMessage(t.Context()))
		equal(t, "error", err, nil)
		if len(d.reports) != 1 || !errors.Is(d.reports[0], errBoom) {
			t.Errorf("reports: %v", d.reports)
		}
	})
}

func TestDedupSettlesItsClaimAfterTheEndOfTheContext(t *testing.T) {
	t.Parallel()
	for _, lease := range []time.Duration{0, time.Minute} {
		for call, handlerErr := range map[string]error{"complete": nil, "release": errBoom} {
			t.Run(fmt.Sprint(call, lease), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newLeases(lease)
					ctx, cancel := context.WithCancel(t.Context())
					h := (&dedup{store: s}).wrap(func(*message.Message) ([]*message.Message, error) {
						cancel()
						return nil, handlerErr
					})
					_, err := h(newMessage(ctx))
					equal(t, "error", err, handlerErr)
					equal(t, call, s.count(call), 1)
					equal(t, "context of the call", s.ctxErr, nil)
				})
			})
		}
	}
}

func TestDedupRenewsItsClaimWhileTheHandlerRuns(t *testing.T) {
	t.Parallel()
	for _, lease := range []time.Duration{1, 30 * time.Second} {
		t.Run(lease.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newLeases(lease)
				d := &dedup{store: s}
				if lease == 1 { // shorter than anybody can renew: only no panic is asked for
					_, _ = d.wrap(taking(time.Second))(newMessage(t.Context()))
					return
				}
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Minute, cancel) // a handler that does not heed it keeps its claim
				_, err := d.wrap(func(*message.Message) ([]*message.Message, error) {
					time.Sleep(10 * time.Minute)
					return nil, nil
				})(newMessage(ctx))
				equal(t, "error", err, nil)
				equal(t, "renewals", s.count("renew"), 60)
				equal(t, "completions", s.count("complete"), 1)
				equal(t, "reports", len(d.reports), 0)
			})
		})
	}
}

func TestDedupBreaksOffARenewalWhenTheHandlerIsDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeases(time.Minute)
		s.hang = true
		d := &dedup{store: s}
		start := time.Now()
		_, err := d.wrap(taking(21 * time.Second))(newMessage(t.Context()))
		equal(t, "error", err, nil)
		equal(t, "took", time.Since(start), 21*time.Second)
		equal(t, "completions", s.count("complete"), 1)
		equal(t, "reports", len(d.reports), 0)
	})
}

// A replica that lost its claim must not go on beside the one that took it, and what
// it breaks off is no failure of the event.
func TestDedupEndsAHandlerWhoseClaimIsLost(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fault func(s *leases)
		after time.Duration
	}{
		"taken by another":             {func(s *leases) { s.fail("renew", middleware.ErrClaimLost) }, 10 * time.Second},
		"store fails for a lease":      {func(s *leases) { s.fail("renew", errBoom) }, 30 * time.Second},
		"store is mute for a lease":    {func(s *leases) { s.hang = true }, 30 * time.Second},
		"store answers well until 20s": {func(s *leases) { time.AfterFunc(21*time.Second, func() { s.fail("renew", errBoom) }) }, 50 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newLeases(30 * time.Second)
				tt.fault(s)
				d := &dedup{store: s}
				requeued, poisoned := &store{}, &store{}
				h := stack(taking(time.Hour),
					middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: poisoned}),
					middleware.Redelivery(middleware.RedeliveryConfig{Subscription: subscription, Requeuer: requeued}),
					d.wrap,
					middleware.Retry(middleware.RetryConfig{}),
				)
				start := time.Now()
				_, err := h(newMessage(t.Context()))
				equal(t, "error", err, nil)
				equal(t, "ended after", time.Since(start), tt.after)
				equal(t, "poisoned", len(poisoned.stored()), 0)
				if len(requeued.stored()) != 1 {
					t.Fatal("the event is not requeued")
				}
				wantHeader(t, requeued.stored()[0], transports.HeaderAttempts, "")
				equal(t, "delay", requeued.writes[0].delay, 2*time.Second)
				if len(d.reports) == 0 {
					t.Error("nothing is reported")
				}
			})
		})
	}
}

func TestDedupSurvivesAShortOutageOfItsStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newLeases(30 * time.Second)
		s.fail("renew", errBoom)
		time.AfterFunc(25*time.Second, func() { s.fail("renew", nil) })
		d := &dedup{store: s}
		_, err := d.wrap(taking(time.Hour))(newMessage(t.Context()))
		equal(t, "error", err, nil)
		equal(t, "reports", len(d.reports), 2)
		equal(t, "completions", s.count("complete"), 1)
	})
}

// A holder that comes back late, after a pause of its machine for example, must
// neither mark nor free what somebody else has claimed since.
func TestDedupLeavesTheClaimOfAnotherAlone(t *testing.T) {
	t.Parallel()
	for name, handlerErr := range map[string]error{"late success": nil, "late failure": errBoom} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newLeases(time.Minute)
				d := &dedup{store: s}
				_, err := d.wrap(func(*message.Message) ([]*message.Message, error) {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.last++
					s.events[orderKey] = leased{token: s.last, until: time.Now().Add(time.Hour)}
					return nil, handlerErr
				})(newMessage(t.Context()))
				equal(t, "error", err, handlerErr)
				equal(t, "token of the claim", s.events[orderKey].token, 2)
				equal(t, "done", s.events[orderKey].done, false)
			})
		})
	}
}

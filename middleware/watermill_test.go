package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"hash/adler32"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	watermill "github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/ratelimiter"

	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// These tests show what Watermill's own middleware does and ours must not. Each
// runs one scenario on both, and asserts that theirs has the fault: where one of
// these fails at "Watermill", they have mended it.

// publisher is a Watermill publisher that refuses messages whose context has ended,
// as those of package transports do, unless it is careless.
type publisher struct {
	careless  bool
	published []*message.Message
}

func (p *publisher) Publish(_ string, messages ...*message.Message) error {
	for _, msg := range messages {
		if err := msg.Context().Err(); err != nil && !p.careless {
			return err
		}
		p.published = append(p.published, msg.Copy())
	}
	return nil
}

func (p *publisher) Close() error { return nil }

// Poison makes it one for our Poison too.
func (p *publisher) Poison(ctx context.Context, _ string, msg *message.Message) error {
	msg.SetContext(ctx)
	return p.Publish("", msg)
}

func (p *publisher) watermillPoison() message.HandlerMiddleware {
	m, err := watermill.PoisonQueue(p, "poison")
	check(err)
	return m
}

func (p *publisher) poison() message.HandlerMiddleware {
	return middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: p})
}

// seen is a Watermill repository of keys, without the goroutine of theirs that never ends.
type seen map[string]bool

func (s seen) IsDuplicate(_ context.Context, key string) (bool, error) {
	known := s[key]
	s[key] = true
	return known, nil
}

func watermillDedup() message.HandlerMiddleware {
	return (&watermill.Deduplicator{Repository: seen{}, Timeout: time.Minute}).Middleware
}

var watermillRetry = watermill.Retry{MaxRetries: 2, InitialInterval: time.Second, Multiplier: 2}.Middleware

func TestWatermillTrapFailedMessageIsDroppedAsADuplicate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		dedup message.HandlerMiddleware
		fault bool
	}{
		"Watermill": {watermillDedup(), true},
		"ours":      {memoryDedup(t).wrap, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler := failing(1)
			h := tt.dedup(handler.handle)
			_, err := h(newMessage(t.Context()))
			wantErrorIs(t, err, errBoom) // so it is nacked, and comes back
			_, err = h(newMessage(t.Context()))
			equal(t, "acknowledged and never handled", err == nil && handler.calls == 1, tt.fault)
		})
	}
}

func TestWatermillTrapDeduplicatorComparesPayloadsOnly(t *testing.T) {
	t.Parallel()
	const one, two = `{"orderId":1020}`, `{"orderId":1101}`
	equal(t, "Adler-32 of "+one, adler32.Checksum([]byte(one)), adler32.Checksum([]byte(two)))
	for name, tt := range map[string]struct {
		dedup    message.HandlerMiddleware
		payloads [2]string
		fault    bool
	}{
		"Watermill, equal payloads":  {watermillDedup(), [2]string{one, one}, true},
		"ours, equal payloads":       {memoryDedup(t).wrap, [2]string{one, one}, false},
		"Watermill, equal checksums": {watermillDedup(), [2]string{one, two}, true},
		"ours, equal checksums":      {memoryDedup(t).wrap, [2]string{one, two}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler := failing(0)
			h := tt.dedup(handler.handle)
			for i, payload := range tt.payloads {
				msg := newMessage(t.Context())
				msg.UUID, msg.Payload = fmt.Sprint("event-", i), []byte(payload)
				_, err := h(msg)
				equal(t, "error", err, nil)
			}
			equal(t, "the second event is dropped", handler.calls == 1, tt.fault)
		})
	}
}

func TestWatermillTrapShutdownPoisonsWhatIsInFlight(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		poison func(*publisher) message.HandlerMiddleware
		retry  message.HandlerMiddleware
		fault  bool
	}{
		"Watermill": {(*publisher).watermillPoison, watermillRetry, true},
		"ours":      {(*publisher).poison, middleware.Retry(middleware.RetryConfig{MinDelay: time.Hour, MaxDelay: time.Hour}), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				queue := &publisher{careless: true}
				ctx, cancel := context.WithCancel(t.Context())
				done := deliver(stack(failing(1).handle, tt.poison(queue), tt.retry), newMessage(ctx))
				synctest.Wait() // in its back-off, before a second try that would succeed
				cancel()
				err := <-done
				equal(t, "the message is poisoned", len(queue.published) == 1, tt.fault)
				if tt.fault {
					// and the handler's own error is lost
					wantHeader(t, queue.published[0], watermill.ReasonForPoisonedKey, context.Canceled.Error())
					return
				}
				wantErrorIs(t, err, middleware.ErrInterrupted)
				wantErrorIs(t, err, errBoom)
			})
		})
	}
}

func TestWatermillTrapPoisonQueuePublishesWithAnEndedContext(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		poison  func(*publisher) message.HandlerMiddleware
		timeout message.HandlerMiddleware
		fault   bool
	}{
		"Watermill":                       {(*publisher).watermillPoison, watermill.Timeout(time.Second), true},
		"ours":                            {(*publisher).poison, middleware.Timeout(time.Second), false},
		"ours around Watermill's Timeout": {(*publisher).poison, watermill.Timeout(time.Second), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				queue := &publisher{}
				_, err := stack(taking(time.Hour), tt.poison(queue), tt.timeout)(newMessage(t.Context()))
				equal(t, "the publisher refuses", err != nil, tt.fault) // so the message goes round and round
				equal(t, "the message is poisoned", len(queue.published) == 1, !tt.fault)
			})
		})
	}
}

func TestWatermillTrapTimeoutLeavesItsEndedContextOnTheMessage(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		timeout message.HandlerMiddleware
		fault   bool
	}{
		"Watermill": {watermill.Timeout(time.Hour), true},
		"ours":      {middleware.Timeout(time.Hour), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			msg := newMessage(t.Context())
			_, err := tt.timeout(failing(0).handle)(msg)
			equal(t, "error", err, nil)
			equal(t, "the context has ended", msg.Context().Err() != nil, tt.fault)
		})
	}
}

func TestWatermillTrapRetriesAfterATimeoutAreTimedOutAtOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		retry, timeout message.HandlerMiddleware
		fault          bool
	}{
		"Watermill":                       {watermillRetry, watermill.Timeout(time.Minute), true},
		"ours":                            {middleware.Retry(middleware.RetryConfig{}), middleware.Timeout(time.Minute), false},
		"ours around Watermill's Timeout": {middleware.Retry(middleware.RetryConfig{}), watermill.Timeout(time.Minute), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				_, err := stack(func(msg *message.Message) ([]*message.Message, error) {
					if calls++; calls == 1 {
						return taking(time.Hour)(msg)
					}
					return nil, msg.Context().Err()
				}, tt.retry, tt.timeout)(newMessage(t.Context()))
				equal(t, "the second try is timed out", errors.Is(err, context.DeadlineExceeded), tt.fault)
			})
		})
	}
}

// A context that Watermill's Timeout has left must not pass for a shutdown: the
// message would go back for ever.
func TestWatermillsTimeoutInsideOursIsNotTakenForAShutdown(t *testing.T) {
	t.Parallel()
	retry := middleware.Retry(middleware.RetryConfig{})
	for name, inner := range map[string][]message.HandlerMiddleware{
		"Redelivery":           {},
		"Dedup":                {middleware.Dedup(middleware.DedupConfig{Store: newLeases(time.Minute)})},
		"Dedup without leases": {memoryDedup(t).wrap},
		"Retry":                {retry},
		"all":                  {middleware.Dedup(middleware.DedupConfig{Store: newLeases(time.Minute)}), retry},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				requeued, poisoned := &store{}, &store{}
				handler := failing(99)
				h := stack(stack(watermill.Timeout(time.Minute)(handler.handle), inner...),
					middleware.Poison(middleware.PoisonConfig{Subscription: subscription, Queue: poisoned}),
					middleware.Redelivery(middleware.RedeliveryConfig{Subscription: subscription, Requeuer: requeued, Delays: []time.Duration{0}}),
				)
				_, err := h(newMessage(t.Context()))
				equal(t, "error", err, nil)
				equal(t, "requeued", len(requeued.stored()), 1)
				_, err = h(requeued.stored()[0])
				equal(t, "error", err, nil)
				equal(t, "poisoned", len(poisoned.stored()), 1)
				equal(t, "attempts", transports.ReadPoisoned(poisoned.stored()[0]).Attempts, handler.calls)
			})
		})
	}
}

func TestWatermillTrapPoisonQueueForwardsTheOutputOfAFailedHandler(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		poison func(*publisher) message.HandlerMiddleware
		fault  bool
	}{
		"Watermill": {(*publisher).watermillPoison, true},
		"ours":      {(*publisher).poison, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			queue := &publisher{}
			out, err := tt.poison(queue)(func(*message.Message) ([]*message.Message, error) {
				return []*message.Message{newMessage(t.Context())}, errBoom
			})(newMessage(t.Context()))
			equal(t, "error", err, nil)
			equal(t, "poisoned", len(queue.published), 1)
			equal(t, "the router publishes the output", len(out) > 0, tt.fault)
		})
	}
}

func TestWatermillTrapMessageOfAnEndedGoroutineIsNeverSettled(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		recoverer message.HandlerMiddleware
		fault     bool
	}{
		"Watermill": {watermill.Recoverer, true},
		"ours":      {middleware.Recover, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			msg := newMessage(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = tt.recoverer(func(*message.Message) ([]*message.Message, error) {
					runtime.Goexit()
					return nil, nil
				})(msg)
			}()
			<-done
			equal(t, "the message is unsettled", !nacked(msg), tt.fault)
		})
	}
}

// withDefaults makes Watermill's circuit breaker with the zero settings: it opens after
// six failures, for a minute.
func withDefaults[Settings any](build func(Settings) watermill.CircuitBreaker) watermill.CircuitBreaker {
	var settings Settings
	return build(settings)
}

// The dependency is down for a minute, which is no fault of the messages.
func TestWatermillTrapCircuitBreakerPoisonsEverythingWhileOpen(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault bool
		stack func(queue *publisher, h message.HandlerFunc) message.HandlerFunc
	}{
		"Watermill": {true, func(queue *publisher, h message.HandlerFunc) message.HandlerFunc {
			return stack(h, queue.watermillPoison(), withDefaults(watermill.NewCircuitBreaker).Middleware)
		}},
		"ours": {false, func(queue *publisher, h message.HandlerFunc) message.HandlerFunc {
			c := newCircuit(func(b circuitbreaker.Builder[any]) { b.WithFailureThreshold(6) })
			return c.around(h, queue.poison())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				queue := &publisher{}
				start := time.Now()
				handled := 0
				h := tt.stack(queue, func(*message.Message) ([]*message.Message, error) {
					if time.Since(start) < 30*time.Second {
						return nil, errBoom
					}
					handled++
					return nil, nil
				})
				for i := range 20 { // six of them open the circuit
					_, err := h(numbered(t.Context(), i))
					equal(t, "error", err, nil)
				}
				equal(t, "poisoned without a try", len(queue.published) == 20 && handled == 0, tt.fault)
				equal(t, "handled in the end", handled == 14, !tt.fault)
			})
		})
	}
}

func TestWatermillTrapThrottleIgnoresTheContext(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		throttle func() message.HandlerMiddleware
		fault    bool
	}{
		"Watermill": {func() message.HandlerMiddleware { return watermill.NewThrottle(1, time.Hour).Middleware }, true},
		"ours": {func() message.HandlerMiddleware {
			limiter := ratelimiter.NewSmoothWithMaxRate[any](time.Hour)
			limiter.TryAcquirePermit()
			return middleware.RateLimit(limiter, nil)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var ended atomic.Bool
				h := tt.throttle()(failing(0).handle)
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = h(newMessage(ctx))
					ended.Store(true)
				}()
				synctest.Wait()
				cancel()
				synctest.Wait()
				equal(t, "waits on", !ended.Load(), tt.fault)
				<-done
			})
		})
	}
}

package middleware

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// CircuitBreakerConfig configures a [CircuitBreaker].
type CircuitBreakerConfig struct {
	// Breaker decides when the circuit opens and closes. Required. It can be shared:
	// by subscriptions that need the same dependency, and by clients of it.
	Breaker circuitbreaker.CircuitBreaker[any]

	// Observed says that the breaker is fed by the clients that the handler uses, such
	// as one of failsafehttp, so that the middleware only looks at it. Without that,
	// each failure would be recorded twice, and the handler's trial of a half-open
	// circuit would keep its own client from trying.
	Observed bool

	// Gate, if set, is shut while the circuit is open: intake stops. Its Middleware
	// has to be outside of this one, and outside of everything that settles messages
	// or claims them.
	Gate *Gate

	// Stopping, when closed, ends the wait for the circuit to close: messages go back.
	Stopping <-chan struct{}

	// OnChange, if set, is called when the circuit is seen in a new state, not
	// concurrently, beginning with the first that is not closed.
	OnChange func(circuitbreaker.State)
}

// CircuitBreaker pauses a subscription while its dependency is down. While the circuit
// is open, nothing is handled, settled, counted or poisoned: messages that have not
// begun wait at the gate, and those that are between two tries wait here. When the
// breaker's delay is over, single messages are let through, as many at a time as it
// permits for a trial; success closes the circuit, and everything goes on.
//
// A trial that fails says that the dependency is still down, and nothing about the
// message, which is put off without being counted, [Defer]; the next trial is another
// message's. So an outage uses up no retries, and a message that fails by its own
// fault can't keep the circuit open.
//
// What counts as a failure is for the breaker's own conditions to say: by default any
// error, [RetryAfter] included. [Permanent], [Discard] and [Defer] are judgements of the
// event, and an interruption is of nothing: they count neither as failure nor as success.
//
// Its Middleware goes inside [Retry] and outside [Timeout]. With a [Bulkhead] or a
// [RateLimit], which make messages wait while the circuit may open, use Wait outside and
// Guard inside of them instead. One CircuitBreaker is for one subscription; several can
// share the Breaker.
type CircuitBreaker struct {
	cfg CircuitBreakerConfig

	mu       sync.Mutex                    // guards what follows; taken before Gate's
	seen     circuitbreaker.State          // at the last look
	release  func()                        // of the gate; nil while the circuit is closed, or without one
	changed  chan struct{}                 // closed when it is worth trying again; nil while the circuit is closed
	waiting  int                           // messages in Wait
	admitted map[*message.Message]struct{} // let through by the gate for a trial that has not begun
	spare    int                           // permits for a trial that were taken and not used
	news     []circuitbreaker.State        // that OnChange was not told yet
	telling  bool                          // somebody tells it
	refused  time.Time                     // when the breaker had no permit for a trial, unless one was returned since
}

// NewCircuitBreaker makes a circuit breaker for one subscription. It panics without a
// Breaker.
func NewCircuitBreaker(cfg CircuitBreakerConfig) *CircuitBreaker {
	if cfg.Breaker == nil {
		panic("middleware: CircuitBreakerConfig has no Breaker")
	}
	c := &CircuitBreaker{cfg: cfg, admitted: make(map[*message.Message]struct{})}
	if cfg.Gate != nil {
		cfg.Gate.mu.Lock()
		cfg.Gate.circuit = c
		cfg.Gate.mu.Unlock()
	}
	return c
}

const (
	// pollInterval is how often an open or half-open circuit is looked at by who waits
	// for it, at least: others who share the breaker don't tell when they change it.
	pollInterval = time.Second

	// refusedFor is how long a refused permit is taken to mean that there are no
	// others; who shares the breaker does not tell either when one is returned.
	refusedFor = time.Second

	// minTrialDelay is how long a message at least is put off whose trial failed.
	minTrialDelay = time.Second
)

// errNotPermitted is what Guard tells Wait: the message was not tried.
var errNotPermitted = errors.New("circuit is open")

// Middleware is Wait around Guard.
func (c *CircuitBreaker) Middleware(h message.HandlerFunc) message.HandlerFunc {
	return c.Wait(c.Guard(h))
}

// Wait makes messages wait until the circuit permits to try them. Inside of it there
// must be Guard.
func (c *CircuitBreaker) Wait(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		for {
			changed := c.look() // before the try, so that what changes afterwards is not missed
			if changed == nil || c.mayTry() {
				out, err := call(h, msg)
				if !errors.Is(err, errNotPermitted) {
					return out, err
				}
				if changed == nil { // it opened meanwhile
					continue
				}
			}
			if err := c.wait(msg, changed); err != nil {
				return nil, err
			}
		}
	}
}

func (c *CircuitBreaker) wait(msg *message.Message, changed <-chan struct{}) error {
	c.mu.Lock()
	c.waiting++
	c.mu.Unlock()
	err := c.held(msg.Context(), changed, c.cfg.Stopping)
	c.mu.Lock()
	c.waiting--
	c.mu.Unlock()
	return err
}

// held waits until it is worth trying again, or time for another look.
func (c *CircuitBreaker) held(ctx context.Context, changed, stopping <-chan struct{}) error {
	poll := pollInterval
	if remaining := c.cfg.Breaker.RemainingDelay(); remaining > 0 {
		poll = min(poll, remaining)
	}
	timer := time.NewTimer(poll)
	defer timer.Stop()
	return heldAtMost(ctx, changed, stopping, timer.C)
}

// Guard calls the handler when the breaker permits it, and tells the breaker of the
// outcome. Outside of it there must be Wait.
func (c *CircuitBreaker) Guard(h message.HandlerFunc) message.HandlerFunc {
	if c.cfg.Observed {
		return func(msg *message.Message) ([]*message.Message, error) { return c.observe(h, msg) }
	}
	return func(msg *message.Message) ([]*message.Message, error) {
		trial, ok := c.acquire()
		if !ok {
			return nil, errNotPermitted
		}
		if trial {
			c.look()
			c.arrived(msg) // so that the gate lets the next one through, for the next permit
		}
		returned := false
		defer func() {
			if !returned { // a panic is a failure, and its permit must come back
				c.record(msg, trial, errNotReturned)
			}
		}()
		out, err := call(h, msg)
		returned = true
		c.record(msg, trial, err)
		if trial {
			err = c.judge(msg, err)
		}
		return out, err
	}
}

// errNotReturned is recorded for a handler that panicked.
var errNotReturned = errors.New("handler did not return")

// observe is Guard for a breaker that the handler's own clients feed.
func (c *CircuitBreaker) observe(h message.HandlerFunc, msg *message.Message) ([]*message.Message, error) {
	cb := c.cfg.Breaker
	trial := !cb.IsClosed()
	if trial && cb.RemainingDelay() > 0 {
		return nil, errNotPermitted
	}
	out, err := call(h, msg)
	if !trial && cb.IsClosed() {
		return out, err
	}
	if errors.Is(err, circuitbreaker.ErrOpen) { // by a client: there was no permit, or it opened before
		c.noPermit()
		return nil, errNotPermitted
	}
	c.arrived(msg)
	c.look()
	if trial {
		err = c.judge(msg, err)
	}
	return out, err
}

// acquire takes a permit, and reports whether it is one for a trial.
func (c *CircuitBreaker) acquire() (trial, ok bool) {
	cb := c.cfg.Breaker
	if cb.IsHalfOpen() {
		c.mu.Lock()
		if c.spare > 0 {
			c.spare--
			c.mu.Unlock()
			return true, true
		}
		c.mu.Unlock()
	}
	if !cb.TryAcquirePermit() {
		c.noPermit()
		return false, false
	}
	return cb.IsHalfOpen(), true
}

func (c *CircuitBreaker) noPermit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = time.Now()
}

// record tells the breaker of an outcome.
func (c *CircuitBreaker) record(msg *message.Message, trial bool, err error) {
	cb := c.cfg.Breaker
	switch {
	case !trial && cb.IsHalfOpen():
		// It began before the circuit opened and says nothing of how things are now.
	case neutral(msg, err):
		if trial && cb.IsHalfOpen() {
			c.mu.Lock()
			c.spare++ // the breaker takes permits back with an outcome only
			c.mu.Unlock()
		}
	case err != nil:
		cb.RecordError(err)
	default:
		cb.RecordSuccess()
	}
	if trial {
		c.mu.Lock()
		c.refused = time.Time{}
		c.mu.Unlock()
	}
	if c.look() != nil {
		c.wake()
	}
}

// judge returns the error of a message that was a trial. When that has not closed the
// circuit, its failure says nothing of the message.
func (c *CircuitBreaker) judge(msg *message.Message, err error) error {
	if err == nil || neutral(msg, err) || c.cfg.Breaker.IsClosed() {
		return err
	}
	return Defer(max(c.cfg.Breaker.RemainingDelay(), minTrialDelay), err)
}

// neutral reports whether an outcome says nothing of the dependency.
func neutral(msg *message.Message, err error) bool {
	if err == nil {
		return false
	}
	switch VerdictOf(err).Kind {
	case KindPermanent, KindDiscard, KindDefer:
		return true
	default:
		return interrupted(msg, err)
	}
}

// look takes note of the breaker's state, and shuts the gate or opens it. It returns
// the channel that is closed when it is worth trying again, nil when the circuit is
// closed.
func (c *CircuitBreaker) look() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := c.cfg.Breaker.State()
	news := state != c.seen
	if news {
		c.seen = state
		c.refused = time.Time{}
		if state != circuitbreaker.HalfOpenState {
			c.spare = 0
		}
	}
	if state == circuitbreaker.ClosedState {
		if c.changed != nil {
			close(c.changed)
			c.changed = nil
		}
		if c.release != nil {
			c.release()
			c.release = nil
		}
	} else {
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		if c.release == nil && c.cfg.Gate != nil {
			c.release = c.cfg.Gate.hold(&hold{reason: "circuit is open", circuit: c})
		}
	}
	changed := c.changed
	if news && c.cfg.OnChange != nil {
		c.news = append(c.news, state)
		c.tell()
	}
	return changed
}

// tell calls OnChange, one call after the other, and without mu, so that it may ask the
// gate for its reasons. Called with mu held.
func (c *CircuitBreaker) tell() {
	if c.telling {
		return // whoever does goes on with it
	}
	c.telling = true
	defer func() { c.telling = false }()
	for len(c.news) > 0 {
		state := c.news[0]
		c.news = c.news[1:]
		func() {
			c.mu.Unlock()
			defer c.mu.Lock() // also when it panics
			c.cfg.OnChange(state)
		}()
	}
}

// wake lets those who wait try again.
func (c *CircuitBreaker) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed != nil {
		close(c.changed)
		c.changed = make(chan struct{})
	}
	if c.cfg.Gate != nil {
		c.cfg.Gate.poke()
	}
}

// mayTry reports whether it is time for a trial.
func (c *CircuitBreaker) mayTry() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mayTryLocked()
}

// mayTryLocked is mayTry for who holds mu.
func (c *CircuitBreaker) mayTryLocked() bool {
	if c.cfg.Breaker.IsHalfOpen() {
		return c.spare > 0 || time.Since(c.refused) >= refusedFor
	}
	return c.cfg.Breaker.RemainingDelay() == 0
}

// admit is asked by the gate whether it may let a message through. It may when a trial
// is due and nobody is there to make it.
func (c *CircuitBreaker) admit(msg *message.Message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting > 0 || len(c.admitted) > 0 || !c.mayTryLocked() {
		return false
	}
	c.admitted[msg] = struct{}{}
	return true
}

// arrived says that a message that was admitted has begun its trial, or has ended
// without one: a duplicate, for example.
func (c *CircuitBreaker) arrived(msg *message.Message) {
	c.mu.Lock()
	_, ok := c.admitted[msg]
	delete(c.admitted, msg)
	c.mu.Unlock()
	if ok {
		c.wake()
	}
}

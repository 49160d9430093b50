package middleware

import (
	"context"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Gate holds back the messages of a subscription while somebody holds it shut. A
// held message is neither settled nor counted; since a transport delivers no more
// than a subscription's concurrency at a time, intake stops soon after. What is
// held for longer than a [HoldLimit] goes back, uncounted. The zero Gate is open.
type Gate struct {
	mu      sync.Mutex // guards what follows; never held while a circuit's is taken
	holds   []*hold
	circuit *CircuitBreaker // which holds the gate while it is open; nil for none
	changed chan struct{}   // closed when a hold ends, or admits; nil while the gate is open
}

// hold is a reason for which the gate is shut. That of a circuit breaker lets
// single messages through, to see whether the trouble is over.
type hold struct {
	reason  string
	circuit *CircuitBreaker // nil: nothing passes
}

// Hold shuts the gate, for a reason that the operator can read. It stays shut
// until everybody who holds it has called release, which may be called more than
// once.
func (g *Gate) Hold(reason string) (release func()) { return g.hold(&hold{reason: reason}) }

func (g *Gate) hold(h *hold) (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds = append(g.holds, h)
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return func() { g.release(h) }
}

func (g *Gate) release(h *hold) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds = slices.DeleteFunc(g.holds, func(o *hold) bool { return o == h })
	g.wake()
}

// poke lets held messages ask again whether they may pass.
func (g *Gate) poke() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wake()
}

// wake wakes who waits. Called with mu held.
func (g *Gate) wake() {
	if g.changed == nil {
		return
	}
	close(g.changed)
	g.changed = nil
	if len(g.holds) > 0 {
		g.changed = make(chan struct{})
	}
}

// Reasons returns why the gate is shut, each reason once; none when it is open.
func (g *Gate) Reasons() []string {
	g.look()
	g.mu.Lock()
	defer g.mu.Unlock()
	var reasons []string
	for _, h := range g.holds {
		if !slices.Contains(reasons, h.reason) {
			reasons = append(reasons, h.reason)
		}
	}
	return reasons
}

// look makes the circuit look at its breaker, which may have been opened or closed by
// somebody else.
func (g *Gate) look() {
	g.mu.Lock()
	circuit := g.circuit
	g.mu.Unlock()
	if circuit != nil {
		circuit.look()
	}
}

// shut returns the channel that is closed when it is worth asking again, nil when the
// gate is open; and the circuit breaker that may let single messages through, nil when
// somebody else holds the gate too.
func (g *Gate) shut() (changed <-chan struct{}, circuit *CircuitBreaker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range g.holds {
		if h.circuit == nil {
			return g.changed, nil
		}
		circuit = h.circuit
	}
	return g.changed, circuit
}

// Wait returns when nobody holds the gate. When stopping is closed, or ctx or its
// [HoldLimit] ends before that, it returns [ErrInterrupted]. It is for messages that
// have passed the gate already; an open circuit, which holds back new ones, does not
// make it wait: [CircuitBreaker] looks after those itself.
func (g *Gate) Wait(ctx context.Context, stopping <-chan struct{}) error {
	for {
		changed, circuit := g.shut()
		if changed == nil || circuit != nil {
			return nil
		}
		if err := held(ctx, changed, stopping); err != nil {
			return err
		}
	}
}

// Middleware holds messages back while the gate is shut. When stopping is closed,
// or a message's context or its [HoldLimit] ends, they go back with
// [ErrInterrupted].
func (g *Gate) Middleware(stopping <-chan struct{}) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			circuit, err := g.pass(msg, stopping)
			if err != nil {
				return nil, err
			}
			if circuit != nil {
				defer circuit.arrived(msg) // also when it got no further than here
			}
			return h(msg)
		}
	}
}

// pass waits until the message may pass. It returns the circuit that has let it
// through, if one did.
func (g *Gate) pass(msg *message.Message, stopping <-chan struct{}) (*CircuitBreaker, error) {
	for {
		g.look()
		changed, circuit := g.shut()
		switch {
		case changed == nil:
			return nil, nil
		case circuit != nil && circuit.admit(msg):
			return circuit, nil
		}
		var err error
		if circuit != nil {
			err = circuit.held(msg.Context(), changed, stopping)
		} else {
			err = held(msg.Context(), changed, stopping)
		}
		if err != nil {
			return nil, err
		}
	}
}

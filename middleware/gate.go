package middleware

import (
	"context"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Gate holds back the messages of a subscription while somebody holds it shut. A
// held message is neither settled nor counted; since a transport delivers no more
// than a subscription's concurrency at a time, intake stops soon after. The zero
// Gate is open.
type Gate struct {
	mu     sync.Mutex // guards what follows
	holds  []*hold
	opened chan struct{} // closed when it opens; nil while it is open
}

type hold struct{ reason string }

// Hold shuts the gate, for a reason that the operator can read. It stays shut
// until everybody who holds it has called release, which may be called more than
// once.
func (g *Gate) Hold(reason string) (release func()) {
	h := &hold{reason: reason}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds = append(g.holds, h)
	if g.opened == nil {
		g.opened = make(chan struct{})
	}
	return func() { g.release(h) }
}

func (g *Gate) release(h *hold) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds = slices.DeleteFunc(g.holds, func(o *hold) bool { return o == h })
	if g.opened != nil && len(g.holds) == 0 {
		close(g.opened)
		g.opened = nil
	}
}

// Reasons returns why the gate is shut, each reason once; none when it is open.
func (g *Gate) Reasons() []string {
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

// blocked returns the channel that is closed when the gate opens, nil when it
// is open.
func (g *Gate) blocked() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened
}

// Wait returns when the gate is open. When stopping is closed or ctx ends before
// that, it returns [ErrInterrupted].
func (g *Gate) Wait(ctx context.Context, stopping <-chan struct{}) error {
	for {
		opened := g.blocked()
		if opened == nil {
			return nil
		}
		select {
		case <-opened: // and perhaps shut again since
		case <-stopping:
			return ErrInterrupted
		case <-ctx.Done():
			return ErrInterrupted
		}
	}
}

// Middleware holds messages back while the gate is shut. When stopping is closed,
// or a message's context ends, they go back with [ErrInterrupted].
func (g *Gate) Middleware(stopping <-chan struct{}) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			if err := g.Wait(msg.Context(), stopping); err != nil {
				return nil, err
			}
			return h(msg)
		}
	}
}

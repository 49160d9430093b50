package rabbitmq

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/transports"
)

const (
	firstDelay   = 100 * time.Millisecond
	longestDelay = 15 * time.Second
)

const waitingForResources = "waiting for the broker, which is short of resources and takes nothing"

// connection is a connection that is made anew for as long as it is not closed.
//
//	         dial                  lost
//	down ───────────► up ─────────────────► down, and so on
//	  └─────── close ──┴──► closed
type connection struct {
	role  string // at the end of its name at the broker: "publish" or "consume"
	cfg   Config
	nodes []node
	login login
	log   *slog.Logger

	ctx    context.Context //nolint:containedctx // the connection's life, not a call's: ends when close begins
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // the supervisor, and what attempt leaves behind

	starting turn // guards started, and next until then; taken before mu
	started  bool
	next     int // node to try

	mu      sync.Mutex // guards what follows, and wg against a close at the same time
	current *link
	fault   error         // why there is no connection: what the last dial has met
	change  chan struct{} // closed at the next change of current or blocked
	blocked bool          // the broker does not read: it is short of memory or disk

	reattaching reattaching // of the last broker
}

func newConnection(role string, cfg Config, nodes []node, l login) *connection {
	c := &connection{role: role, cfg: cfg, nodes: nodes, login: l, log: cfg.Logger, starting: newTurn(), change: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// start connects for the first time, within ctx, and keeps the connection up from then
// on. It does nothing when it was called before and has succeeded.
func (c *connection) start(ctx context.Context) error {
	if err := c.starting.take(ctx, "waiting for the connection to the broker"); err != nil {
		return err
	}
	defer c.starting.leave()
	if c.started {
		return nil
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(c.ctx, func() { stop(transports.ErrClosed) })()
	conn, err := c.dialFirst(ctx)
	if err != nil {
		return err
	}
	if !c.use(conn) {
		return transports.ErrClosed
	}
	c.started = true
	c.spawn(func() { c.supervise(conn) })
	return nil
}

// supervise reconnects whenever the connection is lost. One that is lost soon after it was
// made is likely to be lost again, so the next ones are made less and less often.
func (c *connection) supervise(conn *link) {
	delay := firstDelay
	for conn != nil {
		made := time.Now()
		c.watch(conn)
		if c.ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.current, c.blocked = nil, false
		c.mu.Unlock()
		if time.Since(made) > longestDelay {
			delay = firstDelay
		}
		conn, delay = c.redial(delay)
	}
}

// watch returns when the connection is lost or to be closed.
func (c *connection) watch(conn *link) {
	blocked := conn.block
	for {
		select {
		case <-c.ctx.Done():
			return
		case err := <-conn.lost:
			if err != nil && c.ctx.Err() == nil {
				c.log.Warn("connection to RabbitMQ is lost; connecting anew", slog.String("connection", c.role), slog.Any("error", err))
			}
			return
		case b, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			if b.Active {
				c.log.Warn("RabbitMQ blocks publishing until it has resources again", slog.String("connection", c.role), slog.String("reason", b.Reason))
			} else {
				c.log.Info("RabbitMQ takes messages again", slog.String("connection", c.role))
			}
			c.mu.Lock()
			c.blocked = b.Active
			c.changed()
			c.mu.Unlock()
		}
	}
}

// redial tries until it succeeds, for the first time within delay. It returns within which
// delay to try next; a nil link means that the connection is to be closed.
func (c *connection) redial(delay time.Duration) (*link, time.Duration) {
	for ; ; delay = min(2*delay, longestDelay) {
		// Full jitter: the services of a broker that comes back do not come all at once.
		if !sleep(c.ctx, rand.N(delay)) { //nolint:gosec // spreads load, guards nothing
			return nil, 0
		}
		conn, err := c.dial(c.ctx)
		if err != nil {
			c.log.Warn("RabbitMQ can't be reached; trying again", slog.String("connection", c.role), slog.Any("error", err))
			c.mu.Lock()
			c.fault = err
			c.mu.Unlock()
			continue
		}
		if !c.use(conn) {
			return nil, 0
		}
		c.log.Info("connected to RabbitMQ again", slog.String("connection", c.role))
		return conn, min(2*delay, longestDelay)
	}
}

// use makes conn the current connection, or closes it and reports false when c was
// closed meanwhile.
func (c *connection) use(conn *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		conn.goodbye() // nobody has used it
		return false
	}
	c.current, c.fault, c.blocked = conn, nil, false
	c.reattaching = reattachesAt(conn.Properties)
	c.changed()
	return true
}

// changed wakes those who wait. Called with mu held.
func (c *connection) changed() {
	close(c.change)
	c.change = make(chan struct{})
}

// wait returns the connection when it is up and, if it is for writing, not blocked.
// The error is [transports.ErrClosed] after close, or why ctx ended.
func (c *connection) wait(ctx context.Context, forWriting bool) (*link, error) {
	for {
		c.mu.Lock()
		conn, blocked, change := c.current, c.blocked, c.change
		c.mu.Unlock()
		switch {
		case c.ctx.Err() != nil:
			return nil, transports.ErrClosed
		case conn != nil && !conn.IsClosed() && !(forWriting && blocked):
			return conn, nil
		}
		what := "waiting for the connection to the broker"
		if conn != nil && blocked {
			what = waitingForResources
		}
		var tick <-chan time.Time
		if conn != nil && conn.IsClosed() { // the supervisor has not heard of it yet
			tick = time.After(firstDelay)
		}
		select {
		case <-change:
		case <-tick:
		case <-c.ctx.Done():
			return nil, transports.ErrClosed
		case <-ctx.Done():
			return nil, c.ended(ctx, what)
		}
	}
}

// ended returns why ctx ended, and what was being waited for; before both, why there is no
// connection.
func (c *connection) ended(ctx context.Context, what string) error {
	c.mu.Lock()
	fault := c.fault
	c.mu.Unlock()
	if fault != nil {
		return fmt.Errorf("%w; %w", fault, ended(ctx, what))
	}
	return ended(ctx, what)
}

// isBlocked reports whether the broker takes no messages.
func (c *connection) isBlocked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blocked
}

// frameSize returns the most bytes that one frame may have on the current connection.
func (c *connection) frameSize() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil || c.current.Config.FrameSize <= 0 {
		return defaultFrameSize
	}
	return c.current.Config.FrameSize
}

// channel opens a channel, waiting for the connection if need be.
func (c *connection) channel(ctx context.Context) (*amqp.Channel, error) {
	for {
		conn, err := c.wait(ctx, false)
		if err != nil {
			return nil, err
		}
		ch, err := conn.Channel()
		switch {
		case err == nil:
			return ch, nil
		case !conn.IsClosed():
			return nil, fmt.Errorf("open channel: %w", err)
		}
	}
}

// run calls f with a channel of its own, anew when the connection is lost in the
// middle. It returns f's error, or why ctx ended: f then goes on in the background
// until its channel is closed, because the client's calls know no context.
func (c *connection) run(ctx context.Context, f func(*amqp.Channel) error) error {
	ch, err := c.open(ctx, f)
	if err != nil {
		return err
	}
	_ = ch.Close() // f has succeeded
	return nil
}

// open is run, and returns the channel, which f has made ready.
func (c *connection) open(ctx context.Context, f func(*amqp.Channel) error) (*amqp.Channel, error) {
	for {
		ch, err := c.attempt(ctx, f)
		if err == nil || !isLost(err) || ctx.Err() != nil {
			return ch, err
		}
		if !sleep(ctx, firstDelay) {
			return nil, ended(ctx, err.Error())
		}
	}
}

func (c *connection) attempt(ctx context.Context, f func(*amqp.Channel) error) (*amqp.Channel, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	ready := make(chan *amqp.Channel)
	failed := make(chan error, 1)
	spawned := c.spawn(func() {
		ch, err := c.channel(ctx)
		if err != nil {
			failed <- err
			return
		}
		if err := f(ch); err != nil {
			_ = ch.Close() // it may be closed already, by err
			failed <- err
			return
		}
		select {
		case ready <- ch:
		case <-ctx.Done():
			_ = ch.Close() // nobody waits for it
		}
	})
	if !spawned {
		return nil, transports.ErrClosed
	}
	select {
	case ch := <-ready:
		return ch, nil
	case err := <-failed:
		return nil, err
	case <-ctx.Done():
		return nil, c.ended(ctx, "waiting for the broker's answer")
	}
}

// spawn runs f in a goroutine that close waits for. It reports false after close.
func (c *connection) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.wg.Go(f)
	return true
}

// close says goodbye to the broker and waits for everything that used the connection.
// It may be called more than once.
func (c *connection) close() {
	c.mu.Lock()
	c.cancel(transports.ErrClosed)
	conn := c.current
	c.changed()
	c.mu.Unlock()
	if conn != nil {
		conn.goodbye()
	}
	c.wg.Wait()
}

// turn is a mutex that is waited for as long as a context allows.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context, what string) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ended(ctx, what)
	}
}

func (t turn) leave() { <-t }

// sleep waits for d and reports false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

package realtime

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
)

// ErrForbidden is what [Config.Authorize] returns for a group that the principal may not
// join, or that does not exist.
var ErrForbidden = errors.New("forbidden")

// Hub is an http.Handler whose clients get the events of the groups that they have joined.
// Make one with [New]. Its methods may be called concurrently.
type Hub struct {
	cfg          Config
	origins      map[string]struct{}
	subscription *bus.Subscription
	serving      sync.WaitGroup // requests of clients

	mu      sync.Mutex // guards what follows, and the clients' fields that say so; taken alone
	history *history
	groups  map[string]map[*client]struct{}
	clients map[*client]struct{}
	closed  bool
	lost    bool // the subscription is, with the connection to the broker
	stats   Stats
}

// Stats is what a hub has and has done.
type Stats struct {
	Clients      int    // now
	Groups       int    // that have clients now
	HistoryBytes int    // of events that are kept for clients which come back
	Events       uint64 // received of the bus, if they belong to a group
	Deliveries   uint64 // events put into clients' queues
	Slow         uint64 // clients that were dropped because they were too slow
}

// New makes a hub and adds its subscription to the bus. Say with [On] which events go where
// before the bus starts. It returns every fault of cfg in one joined error.
func New(cfg Config) (*Hub, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("realtime: %w", err)
	}
	h := &Hub{
		cfg:     cfg,
		origins: make(map[string]struct{}),
		history: cfg.newHistory(),
		groups:  make(map[string]map[*client]struct{}),
		clients: make(map[*client]struct{}),
	}
	for _, origin := range cfg.Origins {
		h.origins[strings.ToLower(origin)] = struct{}{}
	}
	// One event at a time keeps their order. Copies are told by the history.
	h.subscription = cfg.Bus.Subscription(cfg.Subscription,
		bus.Ephemeral(), bus.OnInterruption(h.interrupted), bus.Concurrency(1), bus.WithoutDedup(), bus.Retry(bus.NoRetry()))
	return h, nil
}

// newHistory makes a history that has seen nothing, with a name that no other has.
func (c Config) newHistory() *history {
	return newHistory(strings.ToLower(rand.Text()[:10]), c.History, c.HistoryBytes)
}

// interrupted is told when the node's subscription is lost, and when it is there anew. Its
// clients are sent away, to a node that has its broker, or to come again until this one has.
// What it has missed by then nobody knows, so its history begins anew, and who has been here
// gets a reset.
func (h *Hub) interrupted(lost bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = lost
	if !lost {
		h.history = h.cfg.newHistory()
		h.cfg.Logger.Info("the broker is there again: clients may come")
		return
	}
	h.cfg.Logger.Warn("the connection to the broker is lost: clients are sent away", "clients", len(h.clients))
	for c := range h.clients {
		h.endLocked(c, CloseInterrupted, "this node has lost its broker: connect again")
	}
}

// On sends the events of a type to the groups that the function names: none, one or
// several. Clients get the event as JSON, with its exported fields; [OnView] is for events
// that have something in them which clients must not see. The function must be quick; it is
// called before the event is sent to anybody.
func On[E any](h *Hub, groups func(E) []string) {
	OnView(h, groups, func(event E) E { return event })
}

// OnView is [On] with another view of the event: clients get what view returns, as JSON.
// It is called once for each event that belongs to a group.
func OnView[E, V any](h *Hub, groups func(E) []string, view func(E) V) {
	bus.On(h.subscription, func(ctx context.Context, event E) error {
		names := groups(event)
		if len(names) == 0 {
			return nil
		}
		md, _ := events.MetadataFrom(ctx)
		data, err := encodeEvent(md, view(event))
		if err != nil {
			return bus.Discard(fmt.Errorf("realtime: %w", err)) // a poison queue would end with the process
		}
		h.publish(md, names, data)
		return nil
	})
}

// publish puts an event into the queues of the clients of its groups. It waits for none.
func (h *Hub) publish(md events.Metadata, groups []string, event []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.Events++
	for _, group := range groups {
		msg := h.history.add(eventKey(md.Source, md.ID, group), group, event, time.Now())
		if msg == nil {
			continue // a copy, or the group was named twice
		}
		for c := range h.groups[group] {
			if h.pushLocked(c, msg) {
				h.stats.Deliveries++
			}
		}
	}
}

// pushLocked queues a message for a client, or drops the client. h.mu is held.
func (h *Hub) pushLocked(c *client, msg *message) bool {
	if c.ended {
		return false
	}
	select {
	case c.queue <- msg:
		return true
	default:
		h.stats.Slow++
		h.endLocked(c, CloseSlow, "too slow: messages came faster than you read them")
		return false
	}
}

func (h *Hub) push(c *client, msg *message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pushLocked(c, msg)
}

// end tells a client's goroutines to end, with what the client is told. Code 0: it is gone.
func (h *Hub) end(c *client, code int, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endLocked(c, code, reason)
}

func (h *Hub) endLocked(c *client, code int, reason string) {
	if c.ended {
		return
	}
	c.ended, c.code, c.reason = true, code, reason
	for group := range c.groups {
		h.leaveLocked(c, group)
	}
	delete(h.clients, c)
	close(c.gone)
}

func (h *Hub) leaveLocked(c *client, group string) {
	delete(c.groups, group)
	delete(h.groups[group], c)
	if len(h.groups[group]) == 0 {
		delete(h.groups, group)
	}
}

var (
	errClosed = errors.New("the hub is shut down")
	errFull   = errors.New("the hub has as many clients as it may have")
	errLost   = errors.New("the hub has lost its broker")
)

// register adds a client, and counts its request in h.serving.
func (h *Hub) register(p Principal) (*client, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed
	}
	if h.lost {
		return nil, errLost
	}
	if len(h.clients) >= h.cfg.MaxClients {
		return nil, errFull
	}
	c := &client{
		principal: p,
		queue:     make(chan *message, h.cfg.QueueLength),
		gone:      make(chan struct{}),
		groups:    make(map[string]struct{}),
		abort:     func() {},
	}
	h.clients[c] = struct{}{}
	h.serving.Add(1)
	return c, nil
}

// authorized reports whether a client may join a group.
func (h *Hub) authorized(ctx context.Context, c *client, group string) bool {
	err := h.cfg.Authorize(ctx, c.principal, group)
	if err != nil && !errors.Is(err, ErrForbidden) && ctx.Err() == nil {
		h.cfg.Logger.WarnContext(ctx, "can't tell whether a client may join a group, so it may not",
			"principal", c.principal.ID, "group", group, "error", err)
	}
	return err == nil
}

// join adds a client to groups that it may join. If it comes back, after is the id of the
// last message that it has, and it gets what it has missed, or a reset for each group of
// which something is lost.
//
// All is queued as one message, under the lock that publish takes: nothing is missed or
// doubled between what was and what comes.
func (h *Hub) join(c *client, groups []string, after string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.ended {
		return
	}
	var batch []*message
	var missed []*entry
	for _, group := range groups {
		if after != "" {
			var entries []*entry
			seq, ok := h.history.find(after)
			if ok {
				entries, ok = h.history.after(group, seq)
			}
			if !ok {
				batch = append(batch, answer{Type: "reset", Group: group}.message())
			}
			missed = append(missed, entries...)
		}
		c.groups[group] = struct{}{}
		if h.groups[group] == nil {
			h.groups[group] = make(map[*client]struct{})
		}
		h.groups[group][c] = struct{}{}
	}
	// In one order over all groups, since one id stands for all of them in a stream of
	// server-sent events.
	slices.SortFunc(missed, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	for _, e := range missed {
		batch = append(batch, e.msg)
	}
	for _, group := range groups {
		batch = append(batch, answer{Type: "joined", Group: group, ID: h.history.now(group)}.message())
	}
	h.pushLocked(c, &message{batch: batch})
}

// full reports whether a client may join no further group than those it is in.
func (h *Hub) full(c *client, group string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, in := c.groups[group]
	return !in && len(c.groups) >= h.cfg.MaxGroups
}

func (h *Hub) leave(c *client, group string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, in := c.groups[group]; in {
		h.leaveLocked(c, group)
	}
	h.pushLocked(c, answer{Type: "left", Group: group}.message())
}

// Stats returns what the hub has and has done so far.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.Clients, s.Groups, s.HistoryBytes = len(h.clients), len(h.groups), h.history.bytes
	return s
}

// Close refuses new clients and tells those that are there to go to another node. It
// returns when they are gone; when ctx ends before, it cuts their connections and returns
// the context's cause. It may be called again. Shut the bus down before or after: nothing
// of it waits for clients.
//
// http.Server.Shutdown does not know of WebSockets and waits for server-sent events, so
// call Close first, or with http.Server.RegisterOnShutdown.
func (h *Hub) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	open := make([]*client, 0, len(h.clients))
	for c := range h.clients {
		open = append(open, c)
	}
	for _, c := range open {
		h.endLocked(c, CloseGoingAway, "the server is shutting down")
	}
	h.mu.Unlock()

	done := make(chan struct{})
	go func() { // ends when the clients have, which write timeouts bound
		defer close(done)
		h.serving.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		h.mu.Lock()
		for _, c := range open {
			c.abort()
		}
		h.mu.Unlock()
		return context.Cause(ctx)
	}
}

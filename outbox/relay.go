package outbox

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// subscriptionPrefix begins the names of the relays' subscriptions on the log.
const subscriptionPrefix = "outbox."

// Relay sends the events of an outbox to one destination. See the package's documentation.
type Relay struct {
	ob  *Outbox
	cfg RelayConfig
	log *slog.Logger

	send bus.PublishFunc // through the middleware to the destination

	running atomic.Bool
	sent    atomic.Int64 // events that were confirmed, by which a lane sees that the destination is alive
}

// NewRelay makes a relay; [Relay.Run] runs it. It returns every fault of cfg in one error.
func NewRelay(ob *Outbox, cfg RelayConfig) (*Relay, error) {
	if ob == nil {
		return nil, errors.New("outbox: relay: the outbox is nil")
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("outbox: relay: %w", err)
	}
	r := &Relay{ob: ob, cfg: cfg.withDefaults(), log: ob.cfg.Logger.With("relay", cfg.Name)}
	r.send = r.toDestination
	for _, wrap := range slices.Backward(cfg.PublishMiddleware) {
		r.send = wrap(r.send)
	}
	return r, nil
}

// toDestination is the innermost PublishFunc.
func (r *Relay) toDestination(ctx context.Context, batch []transports.Outgoing) error {
	if publisher, ok := r.cfg.To.(transports.BatchPublisher); ok {
		return publisher.PublishBatch(ctx, batch)
	}
	for _, out := range batch {
		out.Message.SetContext(ctx)
	}
	return publishRuns(r.cfg.To, batch)
}

// Subscription is the name of the relay's subscription on the log, under which its events
// wait and are parked.
func (r *Relay) Subscription() string { return SubscriptionOf(r.cfg.Name) }

// Declare makes the destination known, so that the log keeps everything for it from here
// on; Run does it as well.
func (r *Relay) Declare(ctx context.Context) error {
	return r.ob.log.DeclareSubscription(ctx, r.subscription(), r.cfg.Start.at())
}

func (r *Relay) subscription() transports.Subscription {
	return transports.Subscription{Name: r.Subscription(), Topics: r.cfg.Topics, Concurrency: 2 * r.cfg.Lanes * r.cfg.Batch, Ordered: true}
}

// ErrRunning is returned by Run of a relay that is running already.
var ErrRunning = errors.New("outbox: the relay is running")

// ErrLost is returned by Run when the relay's subscription was removed.
var ErrLost = errors.New("outbox: the relay's subscription on the log is gone")

// Run sends events until ctx ends, or stands by while another process does. It then waits
// for the confirms of what is on its way, and returns nil; what was not confirmed is sent
// again by the next relay. Before that it returns an error only when it can't start, or
// [ErrLost].
func (r *Relay) Run(ctx context.Context) (err error) {
	if !r.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer r.running.Store(false)
	// A log of its own: its lease is shorter than that of subscriptions with slow handlers.
	cfg := r.ob.cfg.transport()
	cfg.Dialect, cfg.NoMigrate, cfg.Lease, cfg.Notify = r.ob.log.Dialect(), true, r.cfg.Lease, false
	log, err := tsql.New(ctx, r.ob.cfg.DB, cfg)
	if err != nil {
		return fmt.Errorf("outbox: relay: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := log.DeclareSubscription(ctx, r.subscription(), r.cfg.Start.at()); err != nil {
		return fmt.Errorf("outbox: relay: %w", err)
	}
	in, err := log.Subscribe(ctx, r.subscription())
	if err != nil {
		return fmt.Errorf("outbox: relay: %w", err)
	}
	r.ob.addRelay(log, true)
	defer r.ob.addRelay(log, false)

	// What is on its way when ctx ends may still be confirmed for a while.
	sending, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(r.cfg.SettleTimeout, func() { stop(errStopped) })
	})()

	s := &sender{relay: r, poison: log, ctx: sending, stopped: ctx}
	s.run(in)
	if ctx.Err() == nil {
		return ErrLost
	}
	return nil
}

// errStopped is the cause of the end of what was not confirmed when a relay stopped.
var errStopped = errors.New("the relay has stopped")

func (ob *Outbox) addRelay(log *tsql.Transport, there bool) {
	ob.mu.Lock()
	defer ob.mu.Unlock()
	if there {
		ob.relays[log] = true
	} else {
		delete(ob.relays, log)
	}
}

// sender is a run of a relay: it spreads what comes from the log over lanes.
//
//	log ──► run ──► lane 1 ──► PublishBatch, confirms ──► ack ──► lane 1 …
//	          └───► lane 2 …
type sender struct {
	relay   *Relay
	poison  transports.PoisonQueue
	ctx     context.Context //nolint:containedctx // the run's: ends when nothing is awaited any more
	stopped context.Context //nolint:containedctx // Run's: ends when nothing more is to be begun
}

var laneSeed = maphash.MakeSeed()

// run returns when the log's channel is closed and everything is settled.
func (s *sender) run(in <-chan *message.Message) {
	lanes := make([]chan *message.Message, s.relay.cfg.Lanes)
	var sending sync.WaitGroup
	for i := range lanes {
		lanes[i] = make(chan *message.Message, s.relay.subscription().Concurrency) // room for all that can be in flight
		l := &lane{sender: s, in: lanes[i]}
		sending.Go(l.run)
	}
	for msg := range in {
		lanes[s.lane(msg)] <- msg
	}
	for _, lane := range lanes {
		close(lane)
	}
	sending.Wait()
}

// lane returns the number of the lane of a message: one for each partition key, and any
// for those without one.
func (s *sender) lane(msg *message.Message) int {
	key := msg.Metadata[partitionKey]
	if key == "" {
		key = msg.UUID
	}
	return int(maphash.String(laneSeed, key) % uint64(s.relay.cfg.Lanes)) //nolint:gosec // less than Lanes
}

// partitionKey is the metadata key of the partition key, see package events.
const partitionKey = "ce_partitionkey"

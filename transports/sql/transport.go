package sql

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/gotidings/tidings/internal/dbsettings"
	"github.com/gotidings/tidings/transports"
)

// Transport is a log in a database. See the package's documentation.
type Transport struct {
	store  *store
	ownsDB bool            // made by Open, and closed by Close
	owner  string          // names this transport in the database, as the holder of leases
	closed context.Context //nolint:containedctx // the transport's life, not a call's: ends with Close
	close  context.CancelCauseFunc

	ids       idWatch
	poller    *poller
	settler   *settler
	published chan struct{} // one token: others are to be notified
	notifying sync.Once

	mu         sync.Mutex // guards what follows
	isClosed   bool       // nothing is started any more
	started    bool       // the background work
	consumers  map[*consumer]bool
	running    sync.WaitGroup // consumers
	background sync.WaitGroup // poller, settler, maintainer
	stopWork   context.CancelFunc
}

var (
	_ transports.Transport           = (*Transport)(nil)
	_ transports.BatchPublisher      = (*Transport)(nil)
	_ transports.Requeuer            = (*Transport)(nil)
	_ transports.PoisonQueue         = (*Transport)(nil)
	_ transports.SubscriptionRemover = (*Transport)(nil)
	_ transports.Pinger              = (*Transport)(nil)
	_ transports.DepthReporter       = (*Transport)(nil)
	_ transports.SystemNamer         = (*Transport)(nil)
	_ transports.SubscriptionLister  = (*Transport)(nil)
	_ transports.PendingReporter     = (*Transport)(nil)
)

// New makes a transport on a database. It makes or checks the tables, see
// [Config.NoMigrate], and returns every fault of cfg in one error. ctx bounds the call.
// db stays open when the transport is closed.
func New(ctx context.Context, db *sql.DB, cfg Config) (*Transport, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s, err := newStore(ctx, db, cfg.withDefaults())
	if err != nil {
		return nil, err
	}
	warnings, err := dbsettings.Check(ctx, db, string(s.cfg.Dialect))
	if err != nil {
		return nil, err
	}
	for _, warning := range warnings {
		s.log.WarnContext(ctx, "a setting of the database weakens what it promises", "setting", warning)
	}
	if !cfg.NoMigrate {
		if err := s.migrate(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.verify(ctx); err != nil {
		return nil, err
	}
	maxBytes, err := s.dialect.check(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := s.dialect.checkIDs(ctx, s); err != nil {
		return nil, err
	}
	s.cfg.MaxMessageBytes = cfg.maxMessageBytes(maxBytes)
	if maxBytes > 0 {
		s.maxRow = maxBytes + metadataMargin
	}
	if maxBytes > 0 && s.cfg.MaxMessageBytes > maxBytes {
		return nil, fmt.Errorf("the field MaxMessageBytes is %d, and the server takes no more than %d", s.cfg.MaxMessageBytes, maxBytes)
	}
	t := &Transport{store: s, owner: uuid.NewString(), consumers: make(map[*consumer]bool), published: make(chan struct{}, 1)}
	t.ids.looked, t.ids.good = time.Now(), time.Now()
	t.closed, t.close = context.WithCancelCause(context.Background())
	t.poller = newPoller(t)
	t.settler = newSettler(t)
	return t, nil
}

// Dialect returns the kind of the database.
func (t *Transport) Dialect() Dialect { return t.store.cfg.Dialect }

// MessagingSystem returns "postgresql", "mysql" or "sqlite", as the semantic conventions
// of OpenTelemetry call them.
func (t *Transport) MessagingSystem() string {
	if d := t.Dialect(); d != Postgres {
		return string(d)
	}
	return "postgresql"
}

// usable returns why nothing can be done: ErrClosed, or the end of ctx.
func (t *Transport) usable(ctx context.Context) error {
	if t.closed.Err() != nil {
		return transports.ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// operation returns ctx for an operation that Close ends too.
func (t *Transport) operation(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if t.closed.Err() != nil { // at once, and not by the goroutine of AfterFunc
		cancel(transports.ErrClosed)
	}
	stop := context.AfterFunc(t.closed, func() { cancel(transports.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// do runs an operation, and says why it was ended rather than how.
func (t *Transport) do(ctx context.Context, fn func(context.Context) error) error {
	ctx, done := t.operation(ctx)
	defer done()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := fn(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Subscribe declares a subscription, which begins now if it is new, and adds a consumer.
func (t *Transport) Subscribe(ctx context.Context, s transports.Subscription) (<-chan *message.Message, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	owner := ""
	if s.Ephemeral {
		owner = uuid.NewString()
	}
	var g *group
	err := t.do(ctx, func(ctx context.Context) (err error) {
		g, err = t.store.declare(ctx, s, FromNow, owner)
		return err
	})
	if err != nil {
		return nil, err
	}
	c := newConsumer(t, g, s)
	if s.Ordered { // so that of two consumers it is the first one that is active
		c.activateFirst(ctx)
	}
	// Messages live until Close, not until the end of ctx, but with its values.
	delivery, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(t.closed, func() { cancel(context.Cause(t.closed)) })
	c.delivery = delivery
	c.intake, c.stopIntake = context.WithCancel(ctx)
	unhook := context.AfterFunc(delivery, c.stopIntake)
	end := func() {
		unhook()
		c.stopIntake()
		stop()
		cancel(nil)
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isClosed { // what was activated ends with its lease
		end()
		return nil, transports.ErrClosed
	}
	t.start()
	t.consumers[c] = true
	t.running.Go(func() {
		defer end()
		c.run()
	})
	return c.out, nil
}

// DeclareSubscription makes a durable subscription without a consumer, to begin where
// start says. It adds topics to one that exists, from start on as well, and moves
// nothing that has been taken already.
func (t *Transport) DeclareSubscription(ctx context.Context, s transports.Subscription, start Start) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if s.Ephemeral {
		return fmt.Errorf("subscription %q: an ephemeral one lives with its consumer", s.Name)
	}
	return t.do(ctx, func(ctx context.Context) error {
		_, err := t.store.declare(ctx, s, start, "")
		return err
	})
}

// start starts the background work. Called with mu held.
func (t *Transport) start() {
	if t.started {
		return
	}
	t.started = true
	var ctx context.Context
	ctx, t.stopWork = context.WithCancel(context.Background()) // ends after the consumers
	t.background.Go(func() { t.poller.run(ctx) })
	t.background.Go(func() { t.settler.run(ctx) })
	maintainer := &maintainer{transport: t, warned: make(map[string]time.Time)}
	t.background.Go(func() { maintainer.run(ctx) })
}

// Close ends all consumers of this transport and gives back what they have not
// acknowledged. Where the database does not answer within some seconds, the leases end
// by themselves.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.isClosed = true
	t.mu.Unlock()
	t.close(transports.ErrClosed)
	t.running.Wait()
	t.mu.Lock()
	if t.stopWork != nil {
		t.stopWork()
	}
	t.mu.Unlock()
	t.background.Wait()
	if t.ownsDB {
		return t.store.db.Close()
	}
	return nil
}

// Wake has the consumers of this transport look for new messages now, after the commit
// of a [Transport.PublishTx] for example, and with [Config.Notify] those of other
// processes too. It costs next to nothing and does not wait.
func (t *Transport) Wake() {
	t.poller.wake()
	t.woken()
}

// Look has the consumers of this transport look for new messages now, as
// [Transport.Wake] does, and tells no other process. Who has been notified calls it.
func (t *Transport) Look() { t.poller.wake() }

// eachConsumer calls fn with every consumer.
func (t *Transport) eachConsumer(fn func(*consumer)) {
	t.mu.Lock()
	all := make([]*consumer, 0, len(t.consumers))
	for c := range t.consumers {
		all = append(all, c)
	}
	t.mu.Unlock()
	for _, c := range all {
		fn(c)
	}
}

// first reports whether c is the oldest consumer of its group in this transport.
func (t *Transport) first(c *consumer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for other := range t.consumers {
		if other.group.id == c.group.id && other.number < c.number {
			return false
		}
	}
	return true
}

// leave takes a consumer that has ended off the list.
func (t *Transport) leave(c *consumer) {
	t.mu.Lock()
	delete(t.consumers, c)
	t.mu.Unlock()
	t.eachConsumer(func(other *consumer) { // one may have stood by
		if other.group.id == c.group.id {
			other.hint(hintAll)
		}
	})
}

// finishTime is how long the last writes of a consumer may take.
const finishTime = 3 * time.Second

// lastly returns a context for the last writes: they are made also after Close.
func lastly() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), finishTime)
}

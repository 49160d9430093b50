package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/internal/intx"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Outbox publishes events in the transactions of a service. Make one with [New]. Its
// methods may be called concurrently.
type Outbox struct {
	cfg     Config
	encoder *bus.Encoder
	log     *tsql.Transport
	file    string // of SQLite

	waker waker

	mu     sync.Mutex // guards what follows
	relays map[*tsql.Transport]bool
}

// New makes an outbox. It makes or checks the tables, see [Config.NoMigrate], so that a
// missing one is found before a business transaction can fail of it, and returns every
// fault of cfg in one error. ctx bounds the call.
func New(ctx context.Context, cfg Config) (*Outbox, error) {
	encoder, err := bus.NewEncoder(bus.EncoderConfig{Source: cfg.Source, Codecs: cfg.Codecs})
	if err = errors.Join(cfg.validate(), err); err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	log, err := tsql.New(ctx, cfg.DB, cfg.transport())
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	ob := &Outbox{cfg: cfg, encoder: encoder, log: log, relays: make(map[*tsql.Transport]bool)}
	if log.Dialect() == tsql.SQLite {
		if ob.file, err = intx.File(ctx, cfg.DB); err != nil {
			return nil, errors.Join(fmt.Errorf("outbox: %w", err), log.Close())
		}
	}
	ob.waker.look = ob.Wake
	return ob, nil
}

// Transport is the log of the outbox. A bus on it handles the events in the services that
// share the database, and needs no relay. It is closed by [Outbox.Close].
func (ob *Outbox) Transport() *tsql.Transport { return ob.log }

// Close ends the subscriptions on [Outbox.Transport]. Transactions that are open can still
// commit what was published in them. Relays are ended by their contexts.
func (ob *Outbox) Close() error {
	ob.waker.close()
	return ob.log.Close()
}

// Register gives a Go type its wire name, as [bus.Register] does. The error is a
// [*bus.TypeError].
func Register[T any](ob *Outbox, eventType string) error {
	return bus.RegisterType[T](ob.encoder, eventType)
}

// withOptions is an event that [With] was called for.
type withOptions struct {
	event any
	opts  []bus.PublishOption
}

// With gives an event options for [Outbox.Publish]: ob.Publish(ctx, tx,
// outbox.With(event, bus.WithID(id), bus.WithDelay(time.Minute))).
func With(event any, opts ...bus.PublishOption) any {
	return withOptions{event: event, opts: opts}
}

// Publish writes events in a transaction of the service, in order: they are sent if and
// only if it commits. They carry what [bus.Bus.Publish] gives them; in a handler, with the
// handler's context, they inherit the correlation id and get the causation id.
//
// It is one statement for events without a delay and one for those with one, or more when
// the batch is larger than a statement can be; nothing is written when any of them is not
// valid. The error is then that of [bus.Bus.Publish], [ErrNoTransaction], [tsql.ErrXA], or wraps the
// database's: [sql.ErrTxDone] when the transaction has ended. What fails in the database
// leaves the transaction as that leaves it; roll it back.
//
// The relay and the subscriptions of this process look for the events every few
// milliseconds for a second from now on; [Outbox.InTx] wakes them at the commit.
func (ob *Outbox) Publish(ctx context.Context, tx Tx, events ...any) error {
	batch := make([]transports.Outgoing, len(events))
	var faults []error
	for i, event := range events {
		var opts []bus.PublishOption
		if with, ok := event.(withOptions); ok {
			event, opts = with.event, with.opts
		}
		var err error
		if batch[i], err = ob.encoder.Encode(ctx, event, opts...); err != nil {
			faults = append(faults, fmt.Errorf("outbox: publish event %d of %d: %w", i, len(events), err))
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	if len(batch) == 0 {
		if err := ob.log.PublishTx(ctx, tx); err != nil { // tx may still be wrong
			return fmt.Errorf("outbox: publish: %w", err)
		}
		return nil
	}
	var send bus.PublishFunc = func(ctx context.Context, batch []transports.Outgoing) error {
		return ob.log.PublishTx(ctx, tx, batch...)
	}
	if ob.cfg.StructuredMode {
		send = bus.Structured(send)
	}
	for _, wrap := range slices.Backward(ob.cfg.PublishMiddleware) {
		send = wrap(send)
	}
	if err := send(ctx, batch); err != nil {
		if errors.Is(err, sql.ErrTxDone) {
			err = fmt.Errorf("the transaction has ended: %w", err)
		}
		if len(batch) == 1 {
			return fmt.Errorf("outbox: publish %s: %w", batch[0].Topic, err)
		}
		return fmt.Errorf("outbox: publish %d events: %w", len(batch), err)
	}
	if !intx.AfterCommit(ctx, tx, ob, ob.Wake) {
		ob.waker.expect()
	}
	return nil
}

// InTx runs fn in a transaction of db and commits it when fn returns nil; after any other
// end of fn it is rolled back. A nil db means [Config.DB]. It wakes the relay and the
// subscriptions of this process at once. fn's context is to be used in the transaction.
// A bus on the same database publishes in the transaction too when it is given fn's context.
// After an error of the commit it is not known whether the transaction was committed.
func (ob *Outbox) InTx(ctx context.Context, db *sql.DB, fn func(ctx context.Context, tx *sql.Tx) error) error {
	if db == nil {
		db = ob.cfg.DB
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("outbox: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // also when fn panics; nothing to do after the commit
	file := ""
	if db == ob.cfg.DB {
		file = ob.file
	}
	ctx, scope := intx.With(ctx, tx, db, file)
	if err := fn(ctx, tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("outbox: commit: %w", err)
	}
	scope.Committed()
	return nil
}

// Wake has the relays and the subscriptions of this process look for events now, and with
// [Config.Notify] those of other processes too. It costs little and does not wait.
func (ob *Outbox) Wake() {
	ob.log.Wake()
	ob.wakeRelays()
}

// Look is [Outbox.Wake] without telling other processes. Who has been notified calls it.
func (ob *Outbox) Look() {
	ob.log.Look()
	ob.wakeRelays()
}

// NotifyChannel is the channel of PostgreSQL on which [Config.Notify] says that something
// was committed. Package pgnotify listens to it.
func (ob *Outbox) NotifyChannel() string { return ob.log.NotifyChannel() }

func (ob *Outbox) wakeRelays() {
	ob.mu.Lock()
	defer ob.mu.Unlock()
	for relay := range ob.relays {
		relay.Look()
	}
}

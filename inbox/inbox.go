package inbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/internal/dberr"
	"github.com/gotidings/tidings/internal/dbsettings"
	"github.com/gotidings/tidings/internal/intx"
	"github.com/gotidings/tidings/middleware"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// Inbox remembers in a database which events were handled. Make one with [New]. Its
// methods may be called concurrently.
type Inbox struct {
	cfg  Config
	sql  statements
	file string // of SQLite

	stop     context.CancelFunc
	cleaning sync.WaitGroup
}

// New makes an inbox. It makes or checks the table, see [Config.NoMigrate], and returns
// every fault of cfg in one error. ctx bounds the call. [Inbox.Close] ends the clean-up.
func New(ctx context.Context, cfg Config) (*Inbox, error) {
	if cfg.DB == nil {
		return nil, errors.Join(errors.New("inbox: DB is nil"), cfg.validate())
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	cfg = cfg.withDefaults()
	if cfg.Dialect == "" {
		var err error
		if cfg.Dialect, err = tsql.DialectOf(ctx, cfg.DB); err != nil {
			return nil, fmt.Errorf("inbox: ask the database what it is: %w", err)
		}
		if err := cfg.validate(); err != nil { // Schema depends on it
			return nil, fmt.Errorf("inbox: %w", err)
		}
	}
	warnings, err := dbsettings.Check(ctx, cfg.DB, string(cfg.Dialect))
	if err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	for _, warning := range warnings {
		cfg.Logger.WarnContext(ctx, "a setting of the database weakens what it promises", "setting", warning)
	}
	if cfg.Isolation == sql.LevelDefault && cfg.Dialect != tsql.SQLite {
		cfg.Isolation = sql.LevelReadCommitted
	}
	ib := &Inbox{cfg: cfg, sql: write(cfg)}
	if cfg.Dialect == tsql.SQLite {
		if ib.file, err = intx.File(ctx, cfg.DB); err != nil {
			return nil, fmt.Errorf("inbox: %w", err)
		}
	}
	if !cfg.NoMigrate {
		if err := ib.migrate(ctx); err != nil {
			return nil, fmt.Errorf("inbox: migrate: %w", err)
		}
	}
	if err := ib.check(ctx); err != nil {
		return nil, fmt.Errorf("inbox: the table can't be read; make it with MigrationSQL, or leave Config.NoMigrate unset: %w", err)
	}
	var life context.Context
	life, ib.stop = context.WithCancel(context.WithoutCancel(ctx))
	if cfg.CleanupInterval > 0 {
		ib.cleaning.Go(func() { ib.clean(life) })
	}
	return ib, nil
}

// Close ends the clean-up. The inbox can be used further.
func (ib *Inbox) Close() error {
	ib.stop()
	ib.cleaning.Wait()
	return nil
}

// clean deletes what is older than the retention, again and again.
func (ib *Inbox) clean(ctx context.Context) {
	ticker := time.NewTicker(ib.cfg.CleanupInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if _, err := ib.Cleanup(ctx); err != nil && ctx.Err() == nil {
			ib.cfg.Logger.WarnContext(ctx, "the inbox is not cleaned up", "error", err)
		}
	}
}

// Cleanup deletes what is older than [Config.Retention], in small batches, and returns how
// many rows. The inbox calls it every [Config.CleanupInterval].
func (ib *Inbox) Cleanup(ctx context.Context) (int, error) {
	total := 0
	for {
		n, err := ib.exec(ctx, ib.sql.clean)
		total += int(n)
		if err != nil {
			return total, fmt.Errorf("inbox: clean up: %w", err)
		}
		if n < cleanBatch {
			return total, nil
		}
	}
}

// ErrNoEvent is returned by a handler of this package whose context has no event, because
// it was not called by a bus.
var ErrNoEvent = errors.New("inbox: the context is not that of an event being handled")

// ReplayID is the extension attribute of an event that is replayed: it is handled once more
// for each replay.
const ReplayID = "replayid"

// Handler makes a handler for [bus.Subscribe] whose effects in the database happen once. It
// runs fn in a transaction in which the event is marked as handled: the mark, what fn
// writes with tx, and what it publishes in tx through an outbox are committed or rolled
// back together. A further copy of the event is acknowledged without running fn; one that
// comes while fn is running waits for the end of that transaction.
//
// The key is that of the subscription, the event's source and id, and the [ReplayID]. An
// event without an id runs fn each time. fn must not commit, must use its context in the
// transaction, and must return the errors of tx. Any error of fn rolls back, also one of
// [bus.Discard], and is returned as it is.
//
// A bus on the same database, or the same file of SQLite, publishes in the transaction too when
// it is given fn's context.
//
// A deadlock or a serialization failure runs fn again, in another transaction, for up to 30
// seconds; nothing counts these runs.
//
// Use [Subscribe], or [bus.DedupBy] with the inbox, so that Start checks the retention and
// the bus does not deduplicate a second time.
func Handler[E any](ib *Inbox, fn func(ctx context.Context, tx *sql.Tx, event E) error) func(context.Context, E) error {
	return func(ctx context.Context, event E) error {
		md, ok := events.MetadataFrom(ctx)
		if !ok || md.Subscription == "" {
			return ErrNoEvent
		}
		return ib.handle(ctx, md, func(ctx context.Context, tx *sql.Tx) error { return fn(ctx, tx, event) })
	}
}

// Subscribe is [bus.Subscribe] with a [Handler].
func Subscribe[E any](b *bus.Bus, ib *Inbox, name string, fn func(ctx context.Context, tx *sql.Tx, event E) error, opts ...bus.SubscribeOption) *bus.Subscription {
	return bus.Subscribe(b, name, Handler(ib, fn), append([]bus.SubscribeOption{bus.DedupBy(ib)}, opts...)...)
}

// handlerPatience is how long conflicts of a handler are not counted. PostgreSQL takes a second
// to find a deadlock.
const handlerPatience = 30 * time.Second

// handle runs fn in a transaction, and again when that was the victim of a deadlock or of
// another conflict: nothing of it has happened then, and it is no failure of the event. After
// handlerPatience the error is returned.
func (ib *Inbox) handle(ctx context.Context, md events.Metadata, fn func(ctx context.Context, tx *sql.Tx) error) error {
	var verdict error // of fn, which decides by itself
	err := dberr.Retry(ctx, handlerPatience, func() error {
		err := ib.try(ctx, md, fn)
		if err != nil && middleware.VerdictOf(err).Kind != middleware.KindRetry {
			verdict = err
			return nil
		}
		return err
	})
	return cmp.Or(verdict, err)
}

func (ib *Inbox) try(ctx context.Context, md events.Metadata, fn func(ctx context.Context, tx *sql.Tx) error) error {
	tx, err := ib.cfg.DB.BeginTx(ctx, &sql.TxOptions{Isolation: ib.cfg.Isolation})
	if err != nil {
		return fmt.Errorf("inbox: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // also when fn panics; nothing to do after the commit
	var key []byte
	if md.ID != "" {
		key = keyOf(kindHandler, md.Subscription, md.Source, md.ID, md.Extensions[ReplayID])
		n, err := exec(ctx, tx, ib.sql.mark, key, ib.cfg.Retention.Milliseconds(), text(md.Subscription), text(md.Source), text(md.ID))
		if err != nil {
			return fmt.Errorf("inbox: mark event %s: %w", md.ID, err)
		}
		if n == 0 {
			return ib.marked(ctx, tx, md, ib.sql.duplicate, key) // a duplicate
		}
	}
	ctx, scope := intx.With(ctx, tx, ib.cfg.DB, ib.file)
	if err := fn(ctx, tx); err != nil {
		return err
	}
	if md.ID != "" {
		if err := ib.marked(ctx, tx, md, ib.sql.kept, key); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("inbox: commit: %w", err)
	}
	scope.Committed()
	return nil
}

// marked returns an error when the mark of an event is not there, so that it is never taken
// for done. Only MySQL is asked: it does not say with the insert why it has written nothing,
// and the commit of a transaction that it has rolled back, after an error that fn has not
// returned, succeeds.
func (ib *Inbox) marked(ctx context.Context, tx *sql.Tx, md events.Metadata, query string, key []byte) error {
	if query == "" {
		return nil
	}
	err := tx.QueryRowContext(ctx, query, key).Scan(new(int))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("inbox: event %s: %w", md.ID, unmarkedError{})
	case err != nil:
		return fmt.Errorf("inbox: look for the mark of event %s: %w", md.ID, err)
	}
	return nil
}

// unmarkedError is a conflict: nothing of the transaction was committed.
type unmarkedError struct{}

func (unmarkedError) Error() string {
	return "the database has rolled the transaction back; a handler returns every error of its tx"
}

func (unmarkedError) SQLState() string { return "40001" }

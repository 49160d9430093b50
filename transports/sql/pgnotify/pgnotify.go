// Package pgnotify has a process hear of what others publish over PostgreSQL, within
// milliseconds, with LISTEN. Without it the transport of package sql polls, up to every
// Config.PollInterval when nothing happens.
//
//	transport, err := sql.New(ctx, db, sql.Config{Notify: true}) // where it is published
//	…
//	listener, err := pgnotify.Listen(ctx, connString, transport) // where it is consumed
//	defer listener.Close()
//
// The target is a transport of package sql, or an outbox, for the relays of its process.
//
// It is a module of its own, since it needs pgx: database/sql has no notifications.
//
// A listener takes one connection, for as long as it lives, which has to be one to the
// server itself: poolers that lend connections by the transaction lose notifications.
// They are hints. When the connection is lost, the transport polls as before until there
// is another one.
package pgnotify

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Target is what hears of what others publish: a [sql.Transport] of this library, or an
// [outbox.Outbox].
//
// [sql.Transport]: https://pkg.go.dev/github.com/gotidings/tidings/transports/sql#Transport
// [outbox.Outbox]: https://pkg.go.dev/github.com/gotidings/tidings/outbox#Outbox
type Target interface {
	// NotifyChannel is the channel of PostgreSQL to listen on.
	NotifyChannel() string

	// Look has the consumers of this process look for messages now, and does not wait.
	Look()
}

// Listener wakes a target. Close ends it.
type Listener struct {
	target  Target
	config  *pgx.ConnConfig
	stop    context.CancelFunc
	running sync.WaitGroup
}

const (
	minRetry = 100 * time.Millisecond
	maxRetry = 10 * time.Second
)

// Listen connects, and wakes target whenever a process with sql.Config.Notify, or
// outbox.Config.Notify, has published, until Close. connString is a URL or DSN of pgx. ctx bounds the connecting. It
// returns the error of the first connection; later it reconnects for ever.
func Listen(ctx context.Context, connString string, target Target) (*Listener, error) {
	config, err := pgx.ParseConfig(connString)
	if err != nil {
		return nil, err // which has no password in it: pgx sees to that
	}
	l := &Listener{target: target, config: config}
	conn, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	var life context.Context
	life, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	l.running.Go(func() { l.run(life, conn) })
	return l, nil
}

// Close ends the listener and its connection. It may be called more than once and
// concurrently.
func (l *Listener) Close() {
	l.stop()
	l.running.Wait()
}

func (l *Listener) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, l.config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{l.target.NotifyChannel()}.Sanitize()); err != nil {
		shut(conn)
		return nil, err
	}
	return conn, nil
}

// shut closes a connection that may be broken.
func shut(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // there is nobody to tell
}

// run waits for notifications, and connects again when the connection is lost.
func (l *Listener) run(ctx context.Context, conn *pgx.Conn) {
	for {
		for {
			if _, err := conn.WaitForNotification(ctx); err != nil {
				break
			}
			l.target.Look()
		}
		shut(conn)
		for delay := minRetry; ; delay = min(2*delay, maxRetry) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(delay):
			}
			var err error
			if conn, err = l.connect(ctx); err == nil {
				l.target.Look() // for what was missed meanwhile
				break
			}
		}
	}
}

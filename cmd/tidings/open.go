package main

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/gotidings/tidings/transports"
)

// mode is what opening a transport may change at the broker.
type mode int

const (
	look    mode = iota // nothing: for commands that work on what is there
	use                 // nothing, but exchanges must be there: to publish and to receive
	migrate             // makes what is missing
)

// bounded returns ctx for one call of the broker.
func (a *app) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, a.timeout, &timeoutError{"--timeout " + a.timeout.String()})
}

// open opens the transport that the flags name.
func (a *app) open(ctx context.Context, m mode) (transports.Transport, error) {
	if a.transport == "" {
		return nil, usagef("no transport: give --transport URL or set TIDINGS_TRANSPORT, such as amqp://user:password@host/vhost or postgres://user:password@host/database")
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	t, err := transports.Open(ctx, withMode(a.transport, m))
	if err != nil && ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, context.Cause(ctx)
	}
	return t, err
}

// withMode adds parameters to a URL that keep a transport from making what is not there.
// What the URL says itself is left.
func withMode(raw string, m mode) string {
	u, err := url.Parse(raw)
	if err != nil { // which Open says better
		return raw
	}
	query := u.Query()
	set := func(name, value string) {
		if !query.Has(name) {
			query.Set(name, value)
		}
	}
	switch u.Scheme {
	case "amqp", "amqps":
		switch m {
		case look:
			set("topology", "none")
		case use:
			set("topology", "verify")
		}
	case "postgres", "postgresql", "mysql", "sqlite":
		if m == migrate {
			break
		}
		set("migrate", "false")
		if u.Scheme == "sqlite" {
			set("mode", "rw") // does not make a file: https://www.sqlite.org/uri.html
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// with opens the transport, calls fn, and closes it.
func (a *app) with(ctx context.Context, m mode, fn func(transports.Transport) error) error {
	t, err := a.open(ctx, m)
	if err != nil {
		return err
	}
	return errors.Join(fn(t), t.Close())
}

// isAMQP reports whether the transport is RabbitMQ.
func (a *app) isAMQP() bool {
	return strings.HasPrefix(a.transport, "amqp://") || strings.HasPrefix(a.transport, "amqps://")
}

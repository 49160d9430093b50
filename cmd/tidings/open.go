package main

import (
	"context"
	"errors"
	"fmt"
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
	return context.WithTimeoutCause(ctx, a.timeout, &timeoutError{a.timeout})
}

// open opens the transport that the flags name.
func (a *app) open(ctx context.Context, m mode) (transports.Transport, error) {
	if a.transport == "" {
		return nil, usagef("no transport: give --transport URL or set TIDINGS_TRANSPORT, such as amqp://user:password@host/vhost or postgres://user:password@host/database")
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	t, err := transports.Open(ctx, a.withMode(m))
	var timeout *timeoutError
	if err != nil && errors.As(context.Cause(ctx), &timeout) && !errors.As(err, new(*timeoutError)) {
		err = fmt.Errorf("%w; %w", err, timeout) // what it has interrupted may be why
	}
	return t, err
}

// withMode adds parameters to the URL that keep a transport from making what is not there.
// What the URL says itself is left.
func (a *app) withMode(m mode) string {
	u, err := url.Parse(a.transport)
	if err != nil { // which Open says better
		return a.transport
	}
	query := u.Query()
	set := func(name, value string) {
		if !query.Has(name) {
			query.Set(name, value)
		}
	}
	switch u.Scheme {
	case "amqp", "amqps":
		set("connect_timeout", a.timeout.String())
		set("unroutable", "error") // an event that the broker drops was not published
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

package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/transports"
)

// Check is a part of readiness.
type Check struct {
	// Name is that of the component: letters, digits, - and _.
	Name string

	// Func returns nil when the component can be used. What is shown of an error is the
	// text of [Fail] or [Warn] in it. Func is not called again before it has returned,
	// and should return when ctx ends.
	Func func(ctx context.Context) error

	// Timeout bounds Func. 0 means Config.Timeout.
	Timeout time.Duration
}

// outputError is an error with a text that can be shown.
type outputError struct {
	status status
	text   string
	cause  error
}

func (e *outputError) Error() string {
	if e.cause == nil {
		return e.text
	}
	return e.text + ": " + e.cause.Error()
}

func (e *outputError) Unwrap() error { return e.cause }

// Fail returns an error for [Check].Func: the check fails, the text is shown to whoever
// asks, and the cause, which may be nil, is only logged.
func Fail(text string, cause error) error { return &outputError{fail, text, cause} }

// Warn returns an error for [Check].Func that leaves the service ready: the status is
// warn. The text is shown, and the cause, which may be nil, is only logged.
func Warn(text string, cause error) error { return &outputError{warn, text, cause} }

// Transport returns the check "transport": the broker of t can be used, see
// [transports.Pinger]. It passes for a transport that can't tell.
func Transport(t transports.Transport) Check {
	return Check{Name: "transport", Func: func(ctx context.Context) error {
		pinger, ok := t.(transports.Pinger)
		if !ok {
			return nil
		}
		if err := pinger.Ping(ctx); err != nil {
			return Fail("the broker can't be used", err)
		}
		return nil
	}}
}

// BusOption is an option of [Bus].
type BusOption interface{ apply(*busCheck) }

type busOption func(*busCheck)

func (o busOption) apply(c *busCheck) { o(c) }

// AllowPaused makes a paused subscription a warning instead of a failure: the named ones,
// or all without names. A service that serves requests as well can be ready while its
// consumers wait for something.
func AllowPaused(subscriptions ...string) BusOption {
	return busOption(func(c *busCheck) {
		c.allowAll = c.allowAll || len(subscriptions) == 0
		c.allowed = append(c.allowed, subscriptions...)
	})
}

type busCheck struct {
	bus      *bus.Bus
	allowAll bool
	allowed  []string
}

// Bus returns the check "bus": b runs with all of its subscriptions, see [bus.Bus.Ready],
// and none of them is paused, by whomever: the operator, an open circuit, or a poison
// queue that can't be written.
func Bus(b *bus.Bus, opts ...BusOption) Check {
	c := &busCheck{bus: b}
	for _, opt := range opts {
		opt.apply(c)
	}
	return Check{Name: "bus", Func: c.check}
}

func (c *busCheck) check(context.Context) error {
	if err := c.bus.Ready(); err != nil {
		return Fail(notReady(err), err)
	}
	var paused []string
	failed := false
	for _, name := range c.bus.Subscriptions() {
		reasons, err := c.bus.PauseReasons(name)
		if err != nil {
			return err
		}
		if len(reasons) > 0 {
			paused = append(paused, fmt.Sprintf("%s is paused: %s", name, strings.Join(reasons, ", ")))
			failed = failed || !c.allowAll && !slices.Contains(c.allowed, name)
		}
	}
	text := strings.Join(paused, "; ")
	switch {
	case failed:
		return Fail(text, nil)
	case text != "":
		return Warn(text, nil)
	}
	return nil
}

// notReady is what is shown of an error of bus.Bus.Ready.
func notReady(err error) string {
	var lost *bus.SubscriptionLostError
	var interrupted *bus.InterruptedError
	switch {
	case errors.As(err, &interrupted): // the log has all of them, with their causes
		return fmt.Sprintf("subscription %s has received nothing for %v", interrupted.Subscription, interrupted.For.Round(time.Second))
	case errors.As(err, &lost):
		return lost.Error()
	case errors.Is(err, bus.ErrClosed):
		return bus.ErrClosed.Error()
	case errors.Is(err, bus.ErrNotRunning):
		return "bus is not running"
	}
	return "bus is configured wrongly"
}

// Age returns a check that fails when something has waited for longer than limit: the
// oldest event of an outbox, say. age returns for how long it has waited, and 0 when
// nothing waits.
func Age(name string, limit time.Duration, age func(context.Context) (time.Duration, error)) Check {
	return Check{Name: name, Func: func(ctx context.Context) error {
		waited, err := age(ctx)
		switch {
		case err != nil:
			return Fail("the age can't be told", err)
		case waited > limit:
			return Fail(fmt.Sprintf("the oldest has waited for %v, the limit is %v", waited.Round(time.Millisecond), limit), nil)
		}
		return nil
	}}
}

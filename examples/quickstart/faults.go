package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
)

// What can fail, as it is called in the report.
const (
	mailServer  = "mail server"
	stock       = "stock"
	pushGateway = "push gateway"
	statistics  = "statistics"
	pager       = "pager"
)

// scarceProduct is what orders with a fault of the stock are about.
const scarceProduct = 13

// fault is what goes wrong with an event.
type fault struct {
	of       string // which collaborator fails
	attempts int    // how many attempts fail; 0: all of them until the fault is mended
	hopeless bool   // the collaborator says that another attempt would be of no use
	problem  string
}

// faults inject failures into the collaborators.
type faults struct {
	plan   map[string]fault // by event id; not changed any more
	mended atomic.Bool      // what fails until it is mended
}

// check returns the error with which a collaborator fails on the event that ctx is
// from, or nil.
func (f *faults) check(ctx context.Context, of string) error {
	md, ok := events.MetadataFrom(ctx)
	if !ok {
		return nil
	}
	fault, ok := f.plan[md.ID]
	if !ok || fault.of != of {
		return nil
	}
	err := error(&outageError{fault})
	switch {
	case fault.attempts > 0 && md.Attempt > fault.attempts:
		return nil
	case fault.attempts > 0:
		return fmt.Errorf("%s: %s", fault.of, fault.problem)
	case f.mended.Load():
		return nil
	case fault.hopeless:
		return bus.Permanent(err)
	}
	return err
}

// outageError is a failure that lasts until its cause is mended.
type outageError struct{ fault fault }

func (e *outageError) Error() string { return e.fault.of + ": " + e.fault.problem }

// reasonOf says why an event was poisoned, in the same words for all that have the
// same trouble.
func reasonOf(err error) string {
	var outage *outageError
	var undecodable *bus.DecodeError
	switch {
	case errors.As(err, &outage):
		return outage.Error() // without the handler's own words, which name the customer
	case errors.As(err, &undecodable) && !errors.Is(err, bus.ErrContentType):
		err = undecodable.Err // the type is that of the subscription
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

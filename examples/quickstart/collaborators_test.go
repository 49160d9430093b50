package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/handlers"
	"github.com/gotidings/tidings/middleware"
)

func attempt(t *testing.T, id string, n int) context.Context {
	t.Helper()
	return events.WithMetadata(t.Context(), &events.Metadata{ID: id, Source: "s", Attempt: n})
}

func TestFaults(t *testing.T) {
	t.Parallel()
	f := &faults{plan: map[string]fault{
		"busy":     {of: stock, attempts: 2, problem: "busy"},
		"shut":     {of: stock, problem: "shut"},
		"hopeless": {of: stock, hopeless: true, problem: "gone"},
	}}
	var outage *outageError
	for n := 1; n <= 4; n++ {
		err := f.check(attempt(t, "busy", n), stock)
		if (err != nil) != (n <= 2) || errors.As(err, &outage) {
			t.Errorf("attempt %d of 2 that fail: %v", n, err)
		}
	}
	shut, hopeless := f.check(attempt(t, "shut", 9), stock), f.check(attempt(t, "hopeless", 1), stock)
	if !errors.As(shut, &outage) || middleware.VerdictOf(shut).Kind != middleware.KindRetry {
		t.Errorf("shut: %v", shut)
	}
	if !errors.As(hopeless, &outage) || middleware.VerdictOf(hopeless).Kind != middleware.KindPermanent {
		t.Errorf("hopeless: %v", hopeless)
	}
	for _, err := range []error{
		f.check(attempt(t, "other", 1), stock),
		f.check(attempt(t, "shut", 1), mailServer),
		f.check(t.Context(), stock), // not in a handler
	} {
		if err != nil {
			t.Errorf("failed with %v for nothing", err)
		}
	}
	f.mended.Store(true)
	for _, id := range []string{"shut", "hopeless"} {
		if err := f.check(attempt(t, id, 1), stock); err != nil {
			t.Errorf("%s fails after it was mended: %v", id, err)
		}
	}
	if err := f.check(attempt(t, "busy", 1), stock); err == nil {
		t.Error("mending is not for what passes by itself")
	}
}

// An order that fails half-way must not reserve its first items twice.
func TestReservationIsIdempotent(t *testing.T) {
	t.Parallel()
	c := newCollaborators(&faults{plan: map[string]fault{"1": {of: stock, attempts: 2, problem: "busy"}}})
	handle := handlers.InventoryReservation(c)
	order := events.OrderCreated{OrderID: 1, Items: []events.OrderItem{{ProductID: 7, Quantity: 2}, {ProductID: 7, Quantity: 3}, {ProductID: scarceProduct, Quantity: 1}}}
	for n := 1; n <= 4; n++ { // 4: a copy
		if err := handle(attempt(t, "1", n), order); (err != nil) != (n <= 2) {
			t.Errorf("attempt %d: %v", n, err)
		}
	}
	if c.reserved[7] != 5 || c.reserved[scarceProduct] != 1 {
		t.Errorf("reserved %v, want 5 of 7 and 1 of %d", c.reserved, scarceProduct)
	}
}

func TestReasonOf(t *testing.T) {
	t.Parallel()
	outage := &outageError{fault{of: mailServer, problem: "away"}}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("welcome customer 7: %w", bus.Permanent(outage)), "mail server: away"},
		{bus.Permanent(&bus.DecodeError{EventType: "x", ContentType: "text/xml", Err: bus.ErrContentType}), "decode x (text/xml): no codec for this content type"},
		{bus.Permanent(&bus.DecodeError{EventType: "x", Err: errors.Join(errors.New("a is empty"), errors.New("b is empty"))}), "a is empty; b is empty"},
		{errors.New("something else"), "something else"},
	} {
		if got := reasonOf(tt.err); got != tt.want {
			t.Errorf("reason %q, want %q", got, tt.want)
		}
	}
}

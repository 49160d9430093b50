package guide

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/bus/bustest"
	"github.com/gotidings/tidings/events"
)

// region time

func TestMailComesAfterAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // in here, time is virtual: an hour takes no time
		began := time.Now()
		b := bustest.New(t, bus.Config{})
		bus.Subscribe(b.Bus, "mail", func(context.Context, events.OrderCreated) error {
			if time.Since(began) < 10*time.Minute {
				return errors.New("the mail server is down")
			}
			return nil
		})
		b.Start()
		b.Publish(newOrder(1))
		b.Idle() // until nothing is left to do, later retries included
		if got := b.Outcomes("mail"); got[len(got)-1] != bus.Handled {
			t.Errorf("outcomes: %v", got)
		}
	})
}

// endregion

// shipped is what the shop publishes when it has shipped an order.
type shipped struct {
	OrderID int64 `json:"orderId"`
}

func (shipped) EventType() string { return "order.shipped" }

// region published

func TestShippingIsAnnounced(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bustest.Fail("ship", 1, errors.New("the printer is busy")))
	bus.Subscribe(b.Bus, "ship", func(ctx context.Context, e events.OrderCreated) error {
		return b.Bus.Publish(ctx, shipped{OrderID: e.OrderID}) // with the handler's context
	})
	b.Start()
	b.Publish(newOrder(1))
	b.Idle()
	if got := bustest.Published[shipped](b); !slices.Equal(got, []shipped{{OrderID: 1}}) {
		t.Errorf("published: %v", got)
	}
	all := b.Published() // with their metadata
	order, announcement := all[0].Metadata, all[1].Metadata
	if announcement.CausationID != order.ID || announcement.CorrelationID == "" {
		t.Errorf("metadata: %+v", announcement)
	}
	if got, want := b.Outcomes("ship"), []bus.Outcome{bus.Retried, bus.Handled}; !slices.Equal(got, want) {
		t.Errorf("outcomes: %v, want %v", got, want)
	}
}

// endregion

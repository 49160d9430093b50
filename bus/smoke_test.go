package bus_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports/memory"
)

type created struct{ N int }

func (created) EventType() string { return "thing.created" }

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _ := memory.New(memory.Config{})
		defer tr.Close()
		b, err := bus.New(tr, bus.Config{Source: "shop", OnDelivery: func(d bus.Delivery) { t.Log(d.Outcome, d.Metadata.ID[30:], d.Metadata.Attempt, d.Err, d.Delay) }})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		bus.Subscribe(b, "a", func(ctx context.Context, e created) error {
			md, _ := events.MetadataFrom(ctx)
			t.Log("handle", e.N, md.Attempt, md.Subscription)
			n++
			if e.N == 1 {
				return errors.New("no")
			}
			if e.N == 2 {
				panic("boo")
			}
			return nil
		})
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if err := b.Publish(t.Context(), created{i}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		t.Log(n)
		if err := b.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		for p, err := range b.Poisoned(t.Context(), "a") {
			t.Log(p.Reason, err)
		}
	})
}

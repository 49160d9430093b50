package eventstoretest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/eventstore"
	"github.com/gotidings/tidings/internal/testsql"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// region open
func openStore(ctx context.Context, log *tsql.Transport) (*eventstore.Store, error) {
	return eventstore.New(ctx, eventstore.Config{Log: log, Index: true, Seal: true})
}

// endregion

// region record
func recordedBus(broker transports.Transport, store *eventstore.Store) (*bus.Bus, error) {
	return bus.New(broker, bus.Config{
		Source:            "shop",
		PublishMiddleware: []bus.PublishMiddleware{store.Record}, // the last one
	})
}

// endregion

// region replay
func rebuild(ctx context.Context, store *eventstore.Store, target transports.Transport) error {
	_, err := store.Replay(ctx, target, eventstore.Replay{
		ID:           "rebuild-2026-05", // the same after a crash: it goes on
		Subscription: "shop.projection-2",
		Declare:      []string{"order.#"}, // if it does not exist
		Query:        eventstore.Query{Types: []string{"order.#"}},
		Control:      eventstore.Control{Rate: 500},
	})
	return err
}

// endregion

// region verify
func audit(ctx context.Context, store *eventstore.Store, kept eventstore.Head) (eventstore.Head, error) {
	report, err := store.Verify(ctx, eventstore.VerifyOptions{Head: kept})
	if err != nil {
		return kept, err
	}
	for _, f := range report.Faults {
		fmt.Println(f) // changed: event 0195f3a2-… at 4711: it is not as seal 5 has it
	}
	return report.Head, nil // to be kept elsewhere
}

// endregion

func TestReadme(t *testing.T) {
	t.Parallel()
	db, cfg := testsql.SQLite(t)
	log := testsql.NewTransport(t, db, cfg)
	store, err := openStore(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	broker := memoryTransport(t)
	b, err := recordedBus(broker, store)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), ordered{}, bus.WithSubject("order-1")); err != nil {
		t.Fatal(err)
	}
	page, err := store.List(t.Context(), eventstore.Listing{Query: eventstore.Query{Subject: "order-1", From: time.Now().Add(-time.Hour)}})
	if err != nil || len(page.Events) != 1 {
		t.Fatalf("%+v, %v", page, err)
	}
	for range 2 { // the second finds that all is done
		if err := rebuild(t.Context(), store, broker); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := broker.Depth(t.Context(), "shop.projection-2"); err != nil || d.Ready != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	head, err := audit(t.Context(), store, eventstore.Head{})
	if err != nil || head.Seal != 1 {
		t.Errorf("head %+v, %v", head, err)
	}
}

type ordered struct{}

func (ordered) EventType() string { return "order.created" }

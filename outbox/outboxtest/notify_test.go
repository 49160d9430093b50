package outboxtest

import (
	"strings"
	"testing"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/outbox"
	"github.com/gotidings/tidings/transports/sql/pgnotify"
)

// The relay of a process that polls once an hour hears of what another commits.
func TestRelayIsNotified(t *testing.T) {
	t.Parallel()
	db := newPostgres(t)
	service := newOutbox(t, db, func(cfg *outbox.Config) { cfg.Notify = true })
	other := newOutbox(t, db, func(cfg *outbox.Config) { cfg.PollInterval = time.Hour })
	d := newDestination()
	runRelay(t, other, outbox.RelayConfig{Name: "d", To: d})
	listener, err := pgnotify.Listen(t.Context(), db.dsn, other)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	commit(t, service, ordered{N: 0})
	d.await(t, 1)
	// A poller that has been idle looks once a second all the same, so it is let fall
	// asleep first: the next look is at least half a second away.
	committed, published := time.Hour, time.Hour // the fastest of each
	for n := 1; n <= 6; n++ {
		<-time.After(1500 * time.Millisecond)
		began := time.Now()
		if n%2 == 0 {
			commit(t, service, ordered{N: n})
			d.await(t, n+1)
			committed = min(committed, time.Since(began))
			continue
		}
		tx, err := db.BeginTx(t.Context(), nil) // that somebody else commits
		if err != nil {
			t.Fatal(err)
		}
		if err := service.Publish(t.Context(), tx, ordered{N: n}); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		d.await(t, n+1)
		published = min(published, time.Since(began))
	}
	if fastest := max(committed, published); fastest > 400*time.Millisecond {
		t.Errorf("it took %s after InTx and %s after Publish to hear of it", committed, published)
	}
}

// An outbox in structured mode sends the event as one JSON object.
func TestStructuredMode(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		ob := newOutbox(t, db, func(cfg *outbox.Config) { cfg.StructuredMode = true })
		d := newDestination()
		runRelay(t, ob, outbox.RelayConfig{Name: "d", To: d})
		commit(t, ob, outbox.With(ordered{N: 7}, bus.WithID("seven")))
		msg := d.await(t, 1)[0].Message
		if got := msg.Metadata[events.ContentTypeKey]; got != events.JSONFormat {
			t.Errorf("content type %q", got)
		}
		for _, part := range []string{`"id":"seven"`, `"type":"order.created"`, `"data":{"n":7}`} {
			if !strings.Contains(string(msg.Payload), part) {
				t.Errorf("%s is not in %s", part, msg.Payload)
			}
		}
	})
}

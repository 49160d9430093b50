package outboxtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// A consumer of an ordered subscription that has lost a claim, because it was renewed too
// late, handles nothing that comes after it before that claim is taken over.
func TestOrderedLosesWhatFollowsALostClaim(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db database) {
		t.Helper()
		tr, err := tsql.New(t.Context(), db.DB, tsql.Config{Lease: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		}()
		in, err := tr.Subscribe(t.Context(), transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 100, Ordered: true})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		publish := func(more int) {
			for range more {
				n++
				if err := tr.Publish("a", message.NewMessage(fmt.Sprint(n), nil)); err != nil {
					t.Fatal(err)
				}
			}
		}
		receive := func(want int) *message.Message {
			select {
			case msg := <-in:
				if msg.UUID != fmt.Sprint(want) {
					t.Fatalf("%s is delivered; want %d", msg.UUID, want)
				}
				return msg
			case <-time.After(deadline):
				t.Fatalf("%d is not delivered", want)
				return nil
			}
		}
		publish(1)
		receive(1)
		publish(4) // claims of their own
		for i := 2; i <= 5; i++ {
			receive(i)
		}
		mustExec(t, db.DB, "update tidings_claims set owner = '', lease_ms = 0 where first = (select f from (select min(first) as f from tidings_claims) x)")
		publish(1)
		// The sixth may come before the loss is known, and then again.
		first := <-in
		if first.UUID == "6" {
			first = receive(1)
		}
		if first.UUID != "1" {
			t.Fatalf("%s is delivered; want 1", first.UUID)
		}
		first.Ack()
		for i := 2; i <= 6; i++ {
			receive(i).Ack()
		}
		publish(1)
		receive(7).Ack()
	})
}

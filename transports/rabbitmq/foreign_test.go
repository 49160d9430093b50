package rabbitmq

import (
	"context"
	"fmt"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
)

// What a client sends that knows nothing of events is handled or poisoned, and does not
// go round and round.
func TestMessagesOfStrangersAreHandledOrPoisoned(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	service, err := bus.New(b.Transport, bus.Config{Source: b.id})
	if err != nil {
		t.Fatal(err)
	}
	b.sub("customers", 1) // is removed at the end
	handled := make(chan string, 10)
	bus.Subscribe(service, "customers", func(ctx context.Context, e events.CustomerCreated) error {
		md, _ := events.MetadataFrom(ctx)
		handled <- fmt.Sprintf("%s %d %q", e.Email, md.Attempt, md.ID)
		return nil
	})
	if err := service.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []amqp.Publishing{
		{Body: []byte{0xff, 0, 1}}, // nothing but bytes
		{},                         // nothing at all
		{Body: []byte(`{"customerId":1}`), ContentType: "text/csv"}, // of another kind
		{Body: []byte(`{"customerId":1,"customerName":"Ada","email":"nobody"}`), ContentType: "application/json", MessageId: "invalid"},
		{Body: []byte(`{"customerId":1,"customerName":"Ada","email":"ada@example.com"}`), ContentType: "application/json", MessageId: "m"}, // without a source
		{Body: []byte(`{"customerId":2,"customerName":"Bob","email":"bob@example.com"}`)},                                                  // without anything else
	} {
		if err := b.raw.PublishWithContext(t.Context(), b.id, "customer.created", false, false, foreign); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]bool{<-handled: true, <-handled: true}
	if !got[`ada@example.com 1 "m"`] || !got[`bob@example.com 1 ""`] {
		t.Errorf("handled: %v", got)
	}
	b.eventually("the rest is poisoned", func() bool { return b.depth(b.names.poison(b.id+".customers")) == 4 })
	reasons := make(map[string]bool)
	for p, err := range service.Poisoned(t.Context(), "customers") {
		if err != nil {
			t.Fatal(err)
		}
		reasons[p.Reason] = true
		if p.Attempts > 1 {
			t.Errorf("%q was tried %d times", p.Reason, p.Attempts)
		}
	}
	if len(reasons) < 3 {
		t.Errorf("reasons: %v", reasons)
	}
	if err := service.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if n := b.ready(b.id + ".customers"); n != 0 || len(handled) != 0 {
		t.Errorf("%d messages are left, %d more were handled", n, len(handled))
	}
}

package sql

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports"
)

// A service of plain Watermill on watermill-sql's default tables and one of this library:
// each handles what the other publishes, and the bus goes on where a plain consumer group
// has stopped.
func TestBesidePlainWatermill(t *testing.T) {
	t.Parallel()
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sp := newSpace(t, server)
			orders, reserved := sp.topic("order.created"), sp.topic("stock.reserved")
			publisher, old := sp.plain(t, "reserve")
			publishOrder := func(id string) {
				t.Helper()
				msg := message.NewMessage(id, []byte(`{"order":`+id+`}`))
				middleware.SetCorrelationID("checkout-"+id, msg)
				if err := publisher.Publish(orders, msg); err != nil {
					t.Fatal(err)
				}
			}
			publishOrder("1")
			oldMessages, err := old.Subscribe(t.Context(), orders)
			if err != nil {
				t.Fatal(err)
			}
			receive(t, oldMessages, "1").Ack()
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			publishOrder("2")

			_, confirming := sp.plain(t, "plain")
			router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
			if err != nil {
				t.Fatal(err)
			}
			confirmed := make(chan *message.Message, 10)
			router.AddConsumerHandler("confirm", reserved, confirming, func(msg *message.Message) error {
				confirmed <- msg
				return nil
			})
			ended := make(chan error, 1)
			go func() { ended <- router.Run(context.Background()) }()
			<-router.Running()
			defer func() {
				if err := errors.Join(router.Close(), <-ended, publisher.Close()); err != nil {
					t.Error(err)
				}
			}()

			transport := sp.open(t, Config{Group: func(s transports.Subscription) string { return strings.TrimPrefix(s.Name, "shop.") }})
			b, err := bus.New(transport, bus.Config{Source: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			type reservation struct{ id, correlation, data string }
			handled := make(chan reservation, 10)
			bus.SubscribeRaw(b, "reserve", []string{orders}, func(ctx context.Context, raw bus.Raw) error {
				handled <- reservation{raw.Metadata.ID, raw.Metadata.CorrelationID, strings.ReplaceAll(string(raw.Data), " ", "")}
				return b.PublishRaw(ctx, bus.Raw{
					Metadata: events.Metadata{Type: reserved, ID: "reserved-" + raw.Metadata.ID, CorrelationID: raw.Metadata.CorrelationID},
					Data:     raw.Data,
				})
			})
			if err := b.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := func(id string) {
				t.Helper()
				select {
				case got := <-handled:
					if got.id == "1" { // watermill-sql commits what was acknowledged a moment later, or not any more
						receive(t, confirmed, "reserved-1")
						got = <-handled
					}
					if want := (reservation{id, "checkout-" + id, `{"order":` + id + `}`}); got != want {
						t.Errorf("the bus handles %+v; want %+v", got, want)
					}
				case <-time.After(patience):
					t.Fatalf("the bus does not handle %s", id)
				}
				msg := receive(t, confirmed, "reserved-"+id)
				if middleware.MessageCorrelationID(msg) != "checkout-"+id || msg.Metadata["ce_source"] != "shop" {
					t.Errorf("the plain service handles %v", msg.Metadata)
				}
			}
			want("2") // not 1, which the group has had
			publishOrder("3")
			want("3")
			if err := b.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNewGroupStartsNow(t *testing.T) {
	t.Parallel()
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sp := newSpace(t, server)
			topic := sp.topic("a")
			now, start := sp.open(t, Config{}), sp.open(t, Config{FromStart: true})
			publish(t, now, topic, "early")
			// On PostgreSQL, behind all transactions that are over: what is over must be known
			// to be, so the message is waited for by who is certain to get it.
			ctx, stop := context.WithCancel(t.Context())
			all := subscribe(ctx, t, start, "all", topic)
			receive(t, all, "early").Ack()
			stop()
			for range all {
			}
			fresh := subscribe(t.Context(), t, now, "fresh", topic)
			publish(t, start, topic, "late")
			receive(t, fresh, "late").Ack()
			all = subscribe(t.Context(), t, now, "all", topic) // a group that is there goes on
			receive(t, all, "late").Ack()
		})
	}
}

// What was acknowledged of a batch is not delivered again when the subscription ends in
// the middle of it: watermill-sql rolls the batch back when its context ends.
func TestAcknowledgedIsKeptAtTheEnd(t *testing.T) {
	t.Parallel()
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sp := newSpace(t, server)
			topic := sp.topic("a")
			tr := sp.open(t, Config{FromStart: true})
			publish(t, tr, topic, "1", "2", "3", "4")
			for _, id := range []string{"1", "2", "3", "4"} {
				ctx, stop := context.WithCancel(t.Context())
				ch := subscribe(ctx, t, tr, "s", topic)
				msg := receive(t, ch, id)
				stop()
				msg.Ack()
				for range ch {
				}
			}
		})
	}
}

// A replica that waits for another one's transaction ends all the same.
func TestReplicaOnStandbyCanBeClosed(t *testing.T) {
	t.Parallel()
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sp := newSpace(t, server)
			topic := sp.topic("a")
			active, standby := sp.open(t, Config{FromStart: true}), sp.open(t, Config{FromStart: true})
			publish(t, active, topic, "1", "2")
			ch := subscribe(t.Context(), t, active, "s", topic)
			held := receive(t, ch, "1")
			subscribe(t.Context(), t, standby, "s", topic)
			start := time.Now()
			if err := standby.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			held.Ack()
			receive(t, ch, "2").Ack()
		})
	}
}

func TestAckDeadline(t *testing.T) {
	t.Parallel()
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sp := newSpace(t, server)
			topic := sp.topic("a")
			tr := sp.open(t, Config{FromStart: true, AckDeadline: 100 * time.Millisecond})
			publish(t, tr, topic, "1")
			ch, err := tr.Subscribe(t.Context(), transports.Subscription{Name: "s", Topics: []string{topic}, Concurrency: 2})
			if err != nil {
				t.Fatal(err)
			}
			late := receive(t, ch, "1")
			receive(t, ch, "1").Ack()
			late.Ack() // too late, and harmless
		})
	}
}

func TestPayloadOfBytes(t *testing.T) {
	t.Parallel()
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sp := newSpace(t, server)
			topic := sp.topic("a")
			u := *sp.url
			query := u.Query()
			query.Set("payload", "bytes")
			query.Set("poll_interval", "10ms")
			u.RawQuery = query.Encode()
			tr, err := transports.Open(t.Context(), u.String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := tr.Close(); err != nil {
					t.Error(err)
				}
			}()
			ch := subscribe(t.Context(), t, tr, "s", topic)
			payload := []byte{0, 0xff, '{'}
			if err := tr.Publish(topic, message.NewMessage("1", payload)); err != nil {
				t.Fatal(err)
			}
			msg := receive(t, ch, "1")
			msg.Ack()
			if !bytes.Equal(msg.Payload, payload) {
				t.Errorf("received %x", msg.Payload)
			}
		})
	}
}

func TestTopicThatPostgresWouldCut(t *testing.T) {
	t.Parallel()
	sp := newSpace(t, servers["postgres"])
	tr := sp.open(t, Config{})
	long := strings.Repeat("a", maxTopicBytes+1)
	contains(t, tr.Publish(long, message.NewMessage("1", nil)), "leaves room for 45")
	_, err := tr.Subscribe(t.Context(), transports.Subscription{Name: "s", Topics: []string{long}, Concurrency: 1})
	contains(t, err, "leaves room for 45")
	own := wmsql.DefaultPostgreSQLSchema{GenerateMessagesTableName: func(string) string { return "t" }}
	if err := (Config{Schema: own}).checkTopic(long); err != nil {
		t.Errorf("with names of one's own: %v", err)
	}
}

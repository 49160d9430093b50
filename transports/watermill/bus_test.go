package watermill_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	wm "github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports/watermill"
)

// A service of this library and one of plain Watermill, on one GoChannel. An order of
// ours makes the other reserve it, and that makes ours mail: one correlation id goes all
// the way, through Watermill's own middleware.
func TestBusBesidePlainWatermill(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]gochannel.Config{
		"default":  {},
		"buffered": {OutputChannelBuffer: 10},
		"blocking": {BlockPublishUntilSubscriberAck: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { besidePlainWatermill(t, cfg) })
		})
	}
}

func besidePlainWatermill(t *testing.T, cfg gochannel.Config) {
	t.Helper()
	pubSub := gochannel.NewGoChannel(cfg, nil)
	transport, err := watermill.New(pubSub, pubSub, watermill.Config{Sharing: watermill.FanOut})
	if err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, wm.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	router.AddMiddleware(middleware.CorrelationID)
	router.AddHandler("reserve", "order.created", pubSub, "stock.reserved", pubSub,
		func(msg *message.Message) ([]*message.Message, error) {
			if got := msg.Metadata["ce_type"]; got != "order.created" {
				t.Errorf("the plain service sees the type %q", got)
			}
			return message.Messages{message.NewMessage("reserved "+msg.UUID, []byte(`{"orderId":7}`))}, nil
		})
	routerEnded := make(chan error, 1)
	go func() { routerEnded <- router.Run(context.Background()) }()
	<-router.Running()

	b, err := bus.New(transport, bus.Config{Source: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	var mailed []events.Metadata
	attempts := 0
	bus.SubscribeRaw(b, "mail", []string{"stock.reserved"}, func(ctx context.Context, raw bus.Raw) error {
		attempts++
		if attempts == 1 {
			return errors.New("mail server is away")
		}
		md, _ := events.MetadataFrom(ctx)
		mailed = append(mailed, md)
		if string(raw.Data) != `{"orderId":7}` {
			t.Errorf("the data is %s", raw.Data)
		}
		return nil
	})
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	order := events.OrderCreated{OrderID: 7, CustomerID: 1, TotalAmount: events.MustMoney("1"), Items: []events.OrderItem{{ProductID: 1, Quantity: 1, UnitPrice: events.MustMoney("1")}}}
	if err := b.Publish(t.Context(), order, bus.WithID("order-7"), bus.WithCorrelationID("checkout-1")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute) // virtual; the retry is within
	synctest.Wait()
	if len(mailed) != 1 {
		t.Fatalf("mailed %d times", len(mailed))
	}
	if md := mailed[0]; md.ID != "reserved order-7" || md.Type != "stock.reserved" || md.CorrelationID != "checkout-1" || md.Attempt != 2 {
		t.Errorf("the plain service's message arrives as %+v", md)
	}

	for _, stop := range []func() error{func() error { return b.Shutdown(t.Context()) }, router.Close, transport.Close} {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	if err := <-routerEnded; err != nil {
		t.Error(err)
	}
}

// Without a poison queue of the transport's, a poisoned event goes to a topic.
func TestBusFallsBackToThePoisonTopic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pubSub := gochannel.NewGoChannel(gochannel.Config{}, nil)
		transport, err := watermill.New(pubSub, pubSub, watermill.Config{Sharing: watermill.FanOut})
		if err != nil {
			t.Fatal(err)
		}
		b, err := bus.New(transport, bus.Config{Source: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		policy := bus.Retry(bus.RetryPolicy{Attempts: 1, Redeliveries: []time.Duration{time.Second, time.Second, time.Second}})
		bus.Subscribe(b, "mail", func(context.Context, events.CustomerCreated) error {
			return errors.New("mail server is away")
		}, policy)
		var attempts []int // those of mail are used up, and these are others
		bus.SubscribeRaw(b, "sexton", []string{"poison.shop.mail"}, func(_ context.Context, raw bus.Raw) error {
			attempts = append(attempts, raw.Metadata.Attempt)
			return errors.New("no spade")
		}, policy)
		var reasons []string
		bus.SubscribeRaw(b, "undertaker", []string{"poison.shop.mail"}, func(_ context.Context, raw bus.Raw) error {
			reasons = append(reasons, raw.Metadata.Type+": "+raw.Metadata.ID)
			return nil
		})
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ada := events.CustomerCreated{CustomerID: 1, CustomerName: "Ada", Email: "ada@example.com"}
		if err := b.Publish(t.Context(), ada, bus.WithID("1")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := []int{1, 2, 3, 4}; !slices.Equal(attempts, want) {
			t.Errorf("attempts of what is subscribed to the poison topic: %d; want %d", attempts, want)
		}
		if want := []string{"customer.created: 1"}; !slices.Equal(reasons, want) {
			t.Errorf("poisoned %q; want %q", reasons, want)
		}
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
}

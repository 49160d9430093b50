package protobuf_test

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/codecs/protobuf"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports/memory"
)

// A protobuf message as an event. A message of your own, *pb.OrderPlaced, takes the place
// of *wrapperspb.StringValue.
func Example() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
	}

	// Output:
	// greeting.sent application/protobuf hello
}

func run(ctx context.Context) error {
	transport, err := memory.New(memory.Config{})
	if err != nil {
		return err
	}
	defer func() { _ = transport.Close() }() // it can't fail
	b, err := bus.New(transport, bus.Config{
		Source: "shop",
		Codecs: []bus.Codec{protobuf.Codec{}, bus.JSON{}}, // messages by the first one, structs by the second
	})
	if err != nil {
		return err
	}
	bus.Register[*wrapperspb.StringValue](b, "greeting.sent")
	handled := make(chan struct{})
	bus.Subscribe(b, "print", func(ctx context.Context, e *wrapperspb.StringValue) error {
		defer close(handled)
		md, _ := events.MetadataFrom(ctx)
		_, err := fmt.Println(md.Type, md.DataContentType, e.GetValue())
		return err
	})
	if err := b.Start(ctx); err != nil {
		return err
	}
	if err := b.Publish(ctx, wrapperspb.String("hello")); err != nil {
		return err
	}
	<-handled
	return b.Shutdown(ctx)
}

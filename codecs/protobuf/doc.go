// Package protobuf is the codec of protobuf messages as events.
//
//	b, err := bus.New(transport, bus.Config{
//		Source: "shop",
//		Codecs: []bus.Codec{protobuf.Codec{}, bus.JSON{}},
//	})
//	bus.Register[*pb.OrderPlaced](b, "order.placed")
//	bus.Subscribe(b, "ship", func(ctx context.Context, e *pb.OrderPlaced) error { … })
//	err = b.Publish(ctx, &pb.OrderPlaced{OrderId: 7})
//
// Messages are registered by name as pointers, which is what the generated code uses.
// Before JSON in Config.Codecs, the codec writes the messages and leaves everything else
// to JSON; what is received is read by the codec of its content type.
//
// It is a module of its own, so that only programs that use it depend on
// google.golang.org/protobuf.
package protobuf

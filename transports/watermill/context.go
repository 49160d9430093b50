package watermill

import "context"

// deliveryContext is the context of a delivered message. It ends with the consumer,
// whatever Watermill's subscriber does with its own, and has the values of both:
// subscribers put some there, such as a message's partition. The consumer's context is
// asked first, so that the context package finds the cancellation there without a
// goroutine for each child.
type deliveryContext struct {
	context.Context                 //nolint:containedctx // it is a context: that of the consumer
	message         context.Context //nolint:containedctx // and this is the one that it has further values from
}

func (c deliveryContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.message.Value(key)
}

// Package lease lets a transport tell the receiver of a message for how long the message
// is the receiver's alone. A relay uses it to give up what it is sending before somebody
// else begins to send the same.
package lease

import (
	"context"
	"time"
)

type key struct{}

// With returns ctx with a function that says until when what is delivered with it belongs
// to this process. The time moves on while the lease is renewed. The zero time means that
// it has ended. The function may be called concurrently.
func With(ctx context.Context, until func() time.Time) context.Context {
	return context.WithValue(ctx, key{}, until)
}

// Of returns the function, nil when there is none.
func Of(ctx context.Context) func() time.Time {
	until, _ := ctx.Value(key{}).(func() time.Time)
	return until
}

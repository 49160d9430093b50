package transporttest

import (
	"context"
	"errors"

	"github.com/gotidings/tidings/transports"
)

var pressureTests = []test{
	{"a full subscription holds publishers back", []Feature{BackPressure}, fullSubscriptionHoldsPublishersBack},
	{"a publish that waits ends with its context", []Feature{BackPressure, Durable}, waitingPublishEndsWithContext},
	{"a publish that waits ends with Close", []Feature{BackPressure, Durable}, waitingPublishEndsWithClose},
	{"other topics go on while a subscription is full", []Feature{BackPressure, Durable}, otherTopicsGoOn},
}

var errSample = errors.New("a sample error")

// bound is how much the subscriptions of these tests hold.
const bound = 5

func fullSubscriptionHoldsPublishersBack(e *env) {
	tr := e.closing(e.OpenBounded(e.T, bound))
	ch := e.subscribe(tr, e.sub("s", "a"))
	ids := numbers(bound)
	e.publish(tr, "a", ids...)
	waiting := e.publishLater(e.Context(), tr, "more")
	e.pending(waiting)
	first := e.receive(ch)
	e.pending(waiting) // in flight takes room too
	first.Ack()
	if err := e.result(waiting); err != nil {
		e.Fatal(err)
	}
	got := []string{first.UUID}
	for range bound {
		msg := e.receive(ch)
		msg.Ack()
		got = append(got, msg.UUID)
	}
	e.wantIDs(got, append(ids, "more")...)
}

func waitingPublishEndsWithContext(e *env) {
	tr := e.closing(e.OpenBounded(e.T, bound))
	e.declare(tr, e.sub("s", "a"))
	e.publish(tr, "a", numbers(bound)...)
	ctx, cancel := context.WithCancelCause(e.Context())
	waiting := e.publishLater(ctx, tr, "more")
	e.pending(waiting)
	cancel(errSample)
	if err := e.result(waiting); !errors.Is(err, errSample) && !errors.Is(err, context.Canceled) {
		e.Errorf("publish returned %v; want why its context ended", err)
	}
}

func waitingPublishEndsWithClose(e *env) {
	tr := e.OpenBounded(e.T, bound)
	e.declare(tr, e.sub("s", "a"))
	e.publish(tr, "a", numbers(bound)...)
	waiting := e.publishLater(e.Context(), tr, "more")
	e.pending(waiting)
	if err := tr.Close(); err != nil {
		e.Error(err)
	}
	if err := e.result(waiting); !errors.Is(err, transports.ErrClosed) {
		e.Errorf("publish returned %v; want ErrClosed", err)
	}
}

func otherTopicsGoOn(e *env) {
	tr := e.closing(e.OpenBounded(e.T, bound))
	e.declare(tr, e.sub("full", "a"))
	ch := e.subscribe(tr, e.sub("free", "b"))
	e.publish(tr, "a", numbers(bound)...)
	ctx, cancel := context.WithCancel(e.Context())
	waiting := e.publishLater(ctx, tr, "more")
	e.pending(waiting)
	e.publish(tr, "b", "1", "2")
	e.ackIDs(ch, "1", "2")
	cancel()
	_ = e.result(waiting)
}

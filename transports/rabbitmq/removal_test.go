package rabbitmq

import "testing"

// Who subscribes anew right after a removal gets every message: none goes to the consumer
// of before, whose channel is closed.
func TestSubscribeAfterRemoval(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	for range 10 {
		before := b.subscribe(b.Transport, s)
		if err := b.RemoveSubscription(t.Context(), s.Name); err != nil {
			t.Fatal(err)
		}
		ctx, stop := contextWithStop(t)
		after, err := b.Subscribe(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		b.publish("1")
		b.ack(after, "1")
		if msg, open := <-before; open {
			t.Fatalf("the consumer of before received %s", msg.UUID)
		}
		stop()
		if _, open := <-after; open {
			t.Fatal("a message twice")
		}
	}
}

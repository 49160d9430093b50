package rabbitmq

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gotidings/tidings/internal/testserver"
	"github.com/gotidings/tidings/transports"
)

// An ephemeral subscription says when it is lost with the connection, and when it is there
// anew: what is published from then on arrives. A durable one misses nothing and says nothing.
func TestEphemeralSubscriptionTellsOfInterruption(t *testing.T) {
	t.Parallel()
	var n testserver.Network
	b := newBench(t, nil)
	cfg := b.cfg
	cfg.Dial = n.Dial
	tr := mustOpen(t, cfg)
	defer func() { _ = tr.Close() }()

	told := make(chan bool, 10)
	s := transports.Subscription{Name: b.id + "." + uuid.NewString(), Topics: []string{"a"}, Concurrency: 1, Ephemeral: true, OnInterruption: func(lost bool) { told <- lost }}
	ch := b.subscribe(tr, s)
	durable := b.sub("durable", 1)
	durable.OnInterruption = func(lost bool) { t.Errorf("a durable subscription tells: %t", lost) }
	kept := b.subscribe(tr, durable)
	b.publish("before")
	b.ack(ch, "before")
	b.ack(kept, "before")

	n.Cut()
	wait := func(want bool) {
		t.Helper()
		select {
		case lost := <-told:
			if lost != want {
				t.Fatalf("told %t; want %t", lost, want)
			}
		case <-time.After(testPatience):
			t.Fatalf("nothing was told; want %t", want)
		}
	}
	wait(true)
	b.publish("meanwhile")
	n.Restore()
	wait(false)
	b.publish("after")
	b.ack(ch, "after")
	// Another time can come: "before", whose acknowledgement was lost on the cut line, and
	// "meanwhile", which the broker refuses, and stores all the same, while the ephemeral
	// queue goes away.
	earlier := "before"
	for _, id := range []string{"meanwhile", "after"} {
		msg := b.receive(kept)
		for ; msg.UUID == earlier; msg = b.receive(kept) {
			msg.Ack()
		}
		if msg.UUID != id {
			t.Errorf("received %q; want %q", msg.UUID, id)
		}
		msg.Ack()
		earlier = id
	}

	ctx, stop := contextWithStop(t)
	s.Name += "2"
	ending, err := tr.Subscribe(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	for range ending { // it ends, which is no interruption
		continue
	}
	select {
	case lost := <-told:
		t.Errorf("the end of a subscription tells: %t", lost)
	default:
	}
}

package transporttest

import (
	"errors"
	"time"

	"github.com/gotidings/tidings/transports"
)

var removalTests = []test{
	{"a removed subscription is gone with all that waits in it", []Feature{Removal, Durable}, removedSubscriptionIsGone},
	{"removal closes the consumers' channels", []Feature{Removal}, removalClosesChannels},
	{"removal of an unknown subscription is no error", []Feature{Removal}, removalOfUnknown},
	{"removal empties the poison queue", []Feature{Removal, PoisonQueue}, removalEmptiesPoisonQueue},
	{"depth counts what is ready and what is poisoned", []Feature{Depth, Durable}, depthCounts},
	{"depth counts what is delayed and in flight", []Feature{DepthDetail, Depth, Durable}, depthCountsAll},
	{"depth of an unknown subscription is ErrNoSubscription", []Feature{Depth}, depthOfUnknown},
}

func (e *env) remove(tr transports.Transport, subscription string) {
	e.Helper()
	if err := tr.(transports.SubscriptionRemover).RemoveSubscription(e.Context(), e.name(subscription)); err != nil {
		e.Fatalf("remove %s: %v", subscription, err)
	}
}

func removedSubscriptionIsGone(e *env) {
	tr := e.open()
	e.declare(tr, e.sub("s", "a"))
	e.declare(tr, e.sub("other", "a"))
	e.publish(tr, "a", "1", "2")
	e.remove(tr, "s")
	e.publish(tr, "a", "3")
	// The name begins anew, with other topics.
	again := e.subscribe(tr, e.sub("s", "b"))
	e.publish(tr, "a", "4")
	e.publish(tr, "b", "5")
	e.ackIDs(again, "5")
	e.quiet(again)
	e.ackIDs(e.subscribe(tr, e.sub("other", "a")), "1", "2", "3", "4")
}

func removalClosesChannels(e *env) {
	tr, other := e.open(), e.open()
	idle, busy := e.subscribe(tr, e.sub("idle", "b")), e.subscribe(other, e.sub("busy", "a"))
	e.publish(tr, "a", "1", "2")
	msg := e.receive(busy)
	e.remove(tr, "idle")
	e.remove(tr, "busy")
	e.wantClosed(idle)
	msg.Ack() // into nothing; what is unsettled may keep the channel open
	e.wantClosed(busy)
}

func removalOfUnknown(e *env) {
	tr := e.open()
	e.remove(tr, "never-made")
	e.subscribe(tr, e.sub("s", "a"))
	e.remove(tr, "s")
	e.remove(tr, "s")
}

func removalEmptiesPoisonQueue(e *env) {
	tr := e.open()
	e.subscribe(tr, e.sub("s", "a"))
	e.poison(tr, "s", "1")
	e.remove(tr, "s")
	ch := e.subscribe(tr, e.sub("s", "a"))
	e.wantPoisoned(tr, "s")
	e.publish(tr, "a", "2")
	e.ackIDs(ch, "2")
}

// wantDepth waits until the depth of s is as wanted: brokers count with a delay.
func (e *env) wantDepth(tr transports.Transport, want transports.Depth) {
	e.Helper()
	if _, lacking := e.Lacks[DepthDetail]; lacking {
		want.Delayed, want.InFlight = transports.UnknownDepth, transports.UnknownDepth
	}
	patience := e.patience()
	for {
		got, err := tr.(transports.DepthReporter).Depth(e.Context(), e.name("s"))
		if err != nil {
			e.Fatalf("depth: %v", err)
		}
		if got == want {
			return
		}
		select {
		case <-patience:
			e.Fatalf("depth is %+v; want %+v", got, want)
		case <-time.After(e.Quiet / 10):
		}
	}
}

func depthCounts(e *env) {
	tr := e.open()
	e.declare(tr, e.sub("s", "a"))
	e.wantDepth(tr, transports.Depth{})
	e.publish(tr, "a", "1", "2", "3")
	want := transports.Depth{Ready: 3}
	e.wantDepth(tr, want)
	if _, lacking := e.Lacks[PoisonQueue]; !lacking {
		e.poison(tr, "s", "4")
		want.Poisoned++
		e.wantDepth(tr, want)
	}
	e.ackIDs(e.subscribe(tr, e.sub("s", "a")), "1", "2", "3")
	want.Ready = 0
	e.wantDepth(tr, want)
}

func depthCountsAll(e *env) {
	tr := e.open()
	e.declare(tr, e.sub("s", "a"))
	e.publish(tr, "a", "1", "2", "3")
	ch := e.subscribe(tr, e.sub("s", "a"))
	msg := e.receive(ch)
	want := transports.Depth{Ready: 2, InFlight: 1}
	e.wantDepth(tr, want)
	if _, lacking := e.Lacks[Requeue]; !lacking {
		e.requeue(tr, "s", msg, time.Hour)
		want.Delayed++
		e.wantDepth(tr, want)
	}
	msg.Ack()
	e.ackIDs(ch, "2", "3")
	want.Ready, want.InFlight = 0, 0
	e.wantDepth(tr, want)
}

func depthOfUnknown(e *env) {
	tr := e.open()
	_, err := tr.(transports.DepthReporter).Depth(e.Context(), e.name("never-made"))
	if !errors.Is(err, transports.ErrNoSubscription) {
		e.Errorf("depth: %v; want ErrNoSubscription", err)
	}
}

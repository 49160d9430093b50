package transporttest

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/transports"
)

var delayTests = []test{
	{"a delay that can't be kept is refused", []Feature{BatchPublish}, delayIsKeptOrRefused},
	{"a delayed message arrives when it is due", []Feature{DelayedPublish, BatchPublish}, delayedMessageArrivesWhenDue},
	{"a long delay holds up no short one", []Feature{DelayedPublish, BatchPublish}, longDelayHoldsUpNoShortOne},
	{"delayed messages survive their publisher and consumer", []Feature{DelayedPublish, BatchPublish, Durable}, delayedMessagesSurvive},
	{"a requeued message reaches one subscription only", []Feature{Requeue}, requeueReachesOneSubscription},
	{"a requeued message comes as it was requeued", []Feature{Requeue}, requeuedMessageIsAsRequeued},
	{"requeue without delay comes at once", []Feature{Requeue}, requeueWithoutDelay},
	{"a requeued message waits without a consumer", []Feature{Requeue, Durable}, requeuedMessageWaits},
	{"a delay over the longest is refused", []Feature{Requeue, BatchPublish}, delayOverTheLongest},
}

// short and long are delays: short is long enough to be seen, and long is longer
// than a busy machine makes of a short one.
const (
	short = 300 * time.Millisecond
	long  = 2 * time.Second
)

// publishDelayed publishes to the topic a, and returns when it began to.
func (e *env) publishDelayed(tr transports.Transport, id string, delay time.Duration) time.Time {
	e.Helper()
	called := time.Now()
	batch := []transports.Outgoing{{Topic: e.topic("a"), Message: e.newMessage(id), Delay: delay}}
	if err := tr.(transports.BatchPublisher).PublishBatch(e.Context(), batch); err != nil {
		e.Fatalf("publish %s: %v", id, err)
	}
	return called
}

// wantDelay checks that no less than delay has passed. A broker's clock counts in
// milliseconds, and may round down.
func (e *env) wantDelay(called time.Time, delay time.Duration) {
	e.Helper()
	if took := time.Since(called); took < delay-2*time.Millisecond {
		e.Errorf("arrived after %s; want no less than %s", took, delay)
	}
}

func delayIsKeptOrRefused(e *env) {
	tr := e.open()
	batch := []transports.Outgoing{{Topic: e.topic("a"), Message: e.newMessage("1"), Delay: short}}
	err := tr.(transports.BatchPublisher).PublishBatch(e.Context(), batch)
	_, lacking := e.Lacks[DelayedPublish]
	if lacking && !errors.Is(err, transports.ErrUnsupported) || !lacking && err != nil {
		e.Errorf("publish with a delay: %v; delays are lacking: %t", err, lacking)
	}
}

func delayedMessageArrivesWhenDue(e *env) {
	tr := e.open()
	one, two := e.subscribe(tr, e.sub("one", "a")), e.subscribe(tr, e.sub("two", "a"))
	called := e.publishDelayed(tr, "late", short)
	e.publish(tr, "a", "now")
	for _, ch := range []<-chan *message.Message{one, two} {
		e.ackInOrder(ch, "now", "late")
		e.wantDelay(called, short)
	}
	e.publishDelayed(tr, "negative", -short)
	e.ackIDs(one, "negative")
}

func longDelayHoldsUpNoShortOne(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	called := e.publishDelayed(tr, "long", long)
	e.publishDelayed(tr, "short", short)
	e.ackInOrder(ch, "short", "long")
	e.wantDelay(called, long)
}

func delayedMessagesSurvive(e *env) {
	tr := e.Open(e.T)
	e.declare(tr, e.sub("s", "a"))
	called := e.publishDelayed(tr, "late", short)
	if err := tr.Close(); err != nil {
		e.Error(err)
	}
	e.ackIDs(e.subscribe(e.open(), e.sub("s", "a")), "late")
	e.wantDelay(called, short)
}

func (e *env) requeue(tr transports.Transport, subscription string, msg *message.Message, delay time.Duration) {
	e.Helper()
	if err := tr.(transports.Requeuer).Requeue(e.Context(), e.name(subscription), msg, delay); err != nil {
		e.Fatalf("requeue %s: %v", msg.UUID, err)
	}
}

func requeueReachesOneSubscription(e *env) {
	tr := e.open()
	one, two := e.subscribe(tr, e.sub("one", "a")), e.subscribe(tr, e.sub("two", "a"))
	e.publish(tr, "a", "1")
	e.ackIDs(two, "1")
	msg := e.receive(one)
	called := time.Now()
	e.requeue(tr, "one", msg, short)
	msg.Ack()
	e.publish(tr, "a", "2")
	e.ackInOrder(one, "2", "1")
	e.wantDelay(called, short)
	e.ackIDs(two, "2")
	e.quiet(one, two)
}

func requeuedMessageIsAsRequeued(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	published := e.newMessage("1")
	published.Metadata["ce_type"] = "not.the.topic"
	if err := tr.Publish(e.topic("a"), published); err != nil {
		e.Fatal(err)
	}
	msg := e.receive(ch)
	msg.Metadata[transports.HeaderAttempts] = "3"
	msg.Metadata["mine"] = "new"
	delete(msg.Metadata, "ce_source")
	e.requeue(tr, "s", msg, short)
	want := msg.Copy()
	msg.Metadata["mine"] = "changed later"
	msg.Ack()

	got := e.receive(ch)
	if diff := cmp.Diff(want.Metadata, got.Metadata); diff != "" {
		e.Errorf("metadata (-requeued +received):\n%s", diff)
	}
	if got.UUID != "1" || string(got.Payload) != "1" || transports.Topic(got) != e.topic("a") {
		e.Errorf("received %q with %q of the topic %q", got.UUID, got.Payload, transports.Topic(got))
	}
	got.Ack()
}

func requeueWithoutDelay(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	e.publish(tr, "a", "1")
	msg := e.receive(ch)
	e.requeue(tr, "s", msg, 0)
	msg.Ack()
	e.ackIDs(ch, "1")
	e.quiet(ch)
}

func requeuedMessageWaits(e *env) {
	dying := e.Open(e.T)
	ctx, stop := context.WithCancel(e.Context())
	defer stop()
	ch := e.subscribeContext(ctx, dying, e.sub("s", "a"))
	e.publish(dying, "a", "1")
	msg := e.receive(ch)
	called := time.Now()
	e.requeue(dying, "s", msg, short)
	stop()
	msg.Ack()
	e.wantClosed(ch) // so the acknowledgement has not come too late
	if err := dying.Close(); err != nil {
		e.Error(err)
	}
	again := e.subscribe(e.open(), e.sub("s", "a"))
	e.ackIDs(again, "1")
	e.wantDelay(called, short)
	e.quiet(again)
}

// delayOverTheLongest: a delay that the transport can't keep is refused at once, since no wait
// makes it possible.
func delayOverTheLongest(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	limiter, limited := tr.(transports.DelayLimiter)
	if !limited { // then a year must do
		e.requeue(tr, "s", e.newMessage("1"), 365*24*time.Hour)
		e.quiet(ch)
		return
	}
	delay := limiter.LongestDelay() + time.Second
	if err := tr.(transports.Requeuer).Requeue(e.Context(), e.name("s"), e.newMessage("1"), delay); !errors.Is(err, transports.ErrUnsupported) {
		e.Errorf("requeue: %v; want ErrUnsupported", err)
	}
	batch := []transports.Outgoing{{Topic: e.topic("a"), Message: e.newMessage("1"), Delay: delay}}
	if err := tr.(transports.BatchPublisher).PublishBatch(e.Context(), batch); !errors.Is(err, transports.ErrUnsupported) {
		e.Errorf("publish: %v; want ErrUnsupported", err)
	}
	e.quiet(ch)
}

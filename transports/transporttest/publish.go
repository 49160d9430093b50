package transporttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/transports"
)

var publishTests = []test{
	{"publish of nothing does nothing", nil, publishOfNothing},
	{"publish without a subscription succeeds", nil, publishWithoutSubscription},
	{"an invalid topic is refused", nil, invalidTopicIsRefused},
	{"publish with an ended context publishes nothing", nil, publishWithEndedContext},
	{"PublishError says what was not published", nil, publishErrorSaysWhat},
	{"a batch reaches several topics", []Feature{BatchPublish}, batchReachesSeveralTopics},
	{"a batch that fails in part says in which", []Feature{BatchPublish}, failedBatchSaysWhich},
	{"many publish at a time", nil, manyPublishAtATime},
	{"a message that is published again begins without its deliveries", nil, publishedAgainBeginsAnew},
}

// A handler that forwards what it got, or poisons it to a topic, does not use up the retries
// of others.
func publishedAgainBeginsAnew(e *env) {
	tr := e.open()
	ch, other := e.subscribe(tr, e.sub("s", "a")), e.subscribe(tr, e.sub("other", "b"))
	e.publish(tr, "a", "1")
	msg := e.receive(ch)
	msg.Metadata["mine"] = "kept"
	msg.Metadata[transports.HeaderPoisonReason] = "kept too"
	for _, key := range []string{
		transports.HeaderAttempts, transports.HeaderRedeliveries, transports.HeaderFirstFailure, transports.HeaderDeferredSince,
	} {
		msg.Metadata[key] = "3"
	}
	want := msg.Copy().Metadata
	if err := tr.Publish(e.topic("b"), msg); err != nil {
		e.Fatal(err)
	}
	if diff := cmp.Diff(want, msg.Metadata); diff != "" {
		e.Errorf("Publish has changed its message (-before +after):\n%s", diff)
	}
	msg.Ack()
	got := e.receive(other)
	for key := range got.Metadata {
		if strings.HasPrefix(key, transports.HeaderPrefix) && key != transports.HeaderTopic && key != transports.HeaderPoisonReason {
			e.Errorf("received %s", key)
		}
	}
	if got.Metadata["mine"] != "kept" || got.Metadata[transports.HeaderPoisonReason] != "kept too" {
		e.Errorf("received %v", got.Metadata)
	}
	got.Ack()
}

func publishOfNothing(e *env) {
	tr := e.open()
	if err := tr.Publish(e.topic("a")); err != nil {
		e.Error(err)
	}
	if b, ok := tr.(transports.BatchPublisher); ok {
		if err := b.PublishBatch(e.Context(), nil); err != nil {
			e.Errorf("batch: %v", err)
		}
	}
}

func publishWithoutSubscription(e *env) {
	e.publish(e.open(), "nobody.listens", "1", "2")
}

func invalidTopicIsRefused(e *env) {
	tr := e.open()
	for _, topic := range []string{"", "a\nb", "a\x00b", "a\xff"} {
		if err := tr.Publish(topic, e.newMessage("1")); err == nil {
			e.Errorf("the topic %q is accepted", topic)
		}
	}
}

func publishWithEndedContext(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	ctx, cancel := context.WithCancelCause(e.Context())
	cancel(errSample)
	msg := e.newMessage("1")
	msg.SetContext(ctx)
	if err := tr.Publish(e.topic("a"), msg); !errors.Is(err, errSample) && !errors.Is(err, context.Canceled) {
		e.Errorf("Publish: %v; want why the context ended", err)
	}
	if b, ok := tr.(transports.BatchPublisher); ok {
		err := b.PublishBatch(ctx, []transports.Outgoing{{Topic: e.topic("a"), Message: e.newMessage("2")}})
		if !errors.Is(err, errSample) && !errors.Is(err, context.Canceled) {
			e.Errorf("PublishBatch: %v; want why the context ended", err)
		}
	}
	e.quiet(ch)
}

// mixed returns messages of which the one at index 1 is too large.
func (e *env) mixed() []*message.Message {
	msgs := []*message.Message{e.newMessage("0"), e.newMessage("1"), e.newMessage("2"), e.newMessage("3")}
	msgs[1].Payload = make([]byte, e.MaxMessageBytes+1)
	return msgs
}

// wantMixed checks that err names the message at 1, and that all the messages
// that it does not name arrive.
func (e *env) wantMixed(ch <-chan *message.Message, err error) {
	e.Helper()
	failed, ok := errors.AsType[*transports.PublishError](err)
	if !ok || !errors.Is(err, transports.ErrTooLarge) {
		e.Fatalf("got %v; want a PublishError with ErrTooLarge", err)
	}
	published := map[string]bool{"0": true, "1": true, "2": true, "3": true}
	tooLarge := false
	for _, f := range failed.Failures {
		delete(published, fmt.Sprint(f.Index))
		tooLarge = tooLarge || f.Index == 1 && errors.Is(f.Err, transports.ErrTooLarge)
	}
	if !tooLarge {
		e.Errorf("%v: it does not say that 1 is too large", err)
	}
	if !slices.IsSortedFunc(failed.Failures, func(a, b transports.PublishFailure) int { return a.Index - b.Index }) {
		e.Errorf("failures out of order: %+v", failed.Failures)
	}
	for len(published) > 0 {
		msg := e.receive(ch)
		if msg.UUID == "1" {
			e.Fatal("the message that is too large has arrived")
		}
		delete(published, msg.UUID)
		msg.Ack()
	}
}

func publishErrorSaysWhat(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	e.wantMixed(ch, tr.Publish(e.topic("a"), e.mixed()...))
}

func failedBatchSaysWhich(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a", "b"))
	var batch []transports.Outgoing
	for i, msg := range e.mixed() {
		batch = append(batch, transports.Outgoing{Topic: e.topic([]string{"a", "b"}[i%2]), Message: msg})
	}
	e.wantMixed(ch, tr.(transports.BatchPublisher).PublishBatch(e.Context(), batch))
}

func batchReachesSeveralTopics(e *env) {
	tr := e.open()
	a, b := e.subscribe(tr, e.sub("a", "a")), e.subscribe(tr, e.sub("b", "b"))
	var batch []transports.Outgoing
	for i, id := range numbers(20) {
		batch = append(batch, transports.Outgoing{Topic: e.topic([]string{"a", "b", "nobody"}[i%3]), Message: e.newMessage(id)})
	}
	if err := tr.(transports.BatchPublisher).PublishBatch(e.Context(), batch); err != nil {
		e.Fatal(err)
	}
	e.ackIDs(a, "1", "4", "7", "10", "13", "16", "19")
	e.ackIDs(b, "2", "5", "8", "11", "14", "17", "20")
	e.quiet(a, b)
}

func manyPublishAtATime(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.wide("s", "a"))
	ids := numbers(60)
	var results []<-chan error
	for _, id := range ids {
		results = append(results, e.publishLater(e.Context(), tr, id))
	}
	for _, done := range results {
		if err := e.result(done); err != nil {
			e.Error(err)
		}
	}
	e.ackIDs(ch, ids...)
}

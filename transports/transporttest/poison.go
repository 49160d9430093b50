package transporttest

import (
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/transports"
)

var poisonTests = []test{
	{"a poisoned message is listed with its failure", []Feature{PoisonQueue}, poisonedIsListedWithFailure},
	{"poisoned messages are listed oldest first", []Feature{PoisonQueue}, poisonedAreListedOldestFirst},
	{"listing changes nothing", []Feature{PoisonQueue}, listingChangesNothing},
	{"copies of a poisoned event are one", []Feature{PoisonQueue}, copiesOfPoisonedAreOne},
	{"requeued poison starts afresh", []Feature{PoisonQueue}, requeuedPoisonStartsAfresh},
	{"requeued poison reaches the subscription that failed", []Feature{PoisonQueue}, requeuedPoisonReachesOneSubscription},
	{"discarded poison is gone", []Feature{PoisonQueue}, discardedPoisonIsGone},
	{"poison of other sources is left alone", []Feature{PoisonQueue}, poisonOfOtherSourcesIsLeft},
}

// poisonOf returns the transport's poison queues.
func poisonOf(tr transports.Transport) transports.PoisonQueue { return tr.(transports.PoisonQueue) }

// poison puts new messages of the topic a into the poison queue of a subscription.
func (e *env) poison(tr transports.Transport, subscription string, ids ...string) {
	e.Helper()
	for i, id := range ids {
		msg := e.newMessage(id)
		transports.SetTopic(msg, e.topic("a"))
		transports.WritePoisoned(transports.Poisoned{
			Message: msg, Reason: "no such order", Attempts: i + 1, LastFailure: time.Now(), Subscription: e.name(subscription),
		})
		if err := poisonOf(tr).Poison(e.Context(), e.name(subscription), msg); err != nil {
			e.Fatalf("poison %s: %v", id, err)
		}
	}
}

func (e *env) list(tr transports.Transport, subscription string) []transports.Poisoned {
	e.Helper()
	var list []transports.Poisoned
	for p, err := range poisonOf(tr).Poisoned(e.Context(), e.name(subscription)) {
		if err != nil {
			e.Fatalf("list poisoned messages: %v", err)
		}
		list = append(list, p)
	}
	return list
}

// wantPoisoned wants these ids in the poison queue, oldest first.
func (e *env) wantPoisoned(tr transports.Transport, subscription string, ids ...string) {
	e.Helper()
	got := []string{}
	for _, p := range e.list(tr, subscription) {
		got = append(got, p.Message.UUID)
	}
	if diff := cmp.Diff(append([]string{}, ids...), got); diff != "" {
		e.Fatalf("poison queue of %s (-want +got):\n%s", subscription, diff)
	}
}

// wantCount checks what RequeuePoisoned and DiscardPoisoned return.
func (e *env) wantCount(want int) func(got int, err error) {
	return func(got int, err error) {
		e.Helper()
		if err != nil || got != want {
			e.Fatalf("got %d, %v; want %d events", got, err, want)
		}
	}
}

func poisonedIsListedWithFailure(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	e.publish(tr, "a", "1")
	msg := e.receive(ch)
	msg.Metadata["mine"] = "kept"
	want := transports.Poisoned{
		Message:      msg,
		Reason:       "no such order: \"é\n\"",
		ErrorType:    "*errors.errorString",
		Stack:        "goroutine 1 [running]:\nmain.main()\n\t/main.go:7 +0x1d\n",
		Attempts:     7,
		FirstFailure: time.Date(2026, 2, 3, 4, 5, 6, 123456789, time.UTC),
		LastFailure:  time.Date(2026, 2, 3, 4, 5, 7, 0, time.UTC),
		Subscription: e.name("s"),
		Topic:        e.topic("a"),
		Service:      "shop",
		Host:         "shop-1",
	}
	transports.WritePoisoned(want)
	if err := poisonOf(tr).Poison(e.Context(), e.name("s"), msg); err != nil {
		e.Fatal(err)
	}
	want.Message = msg.Copy()
	msg.Metadata["mine"] = "changed later"
	msg.Ack()

	list := e.list(e.open(), "s")
	if len(list) != 1 {
		e.Fatalf("%d messages listed; want 1", len(list))
	}
	got := list[0]
	if diff := cmp.Diff(want.Message.Metadata, got.Message.Metadata); diff != "" {
		e.Errorf("metadata (-poisoned +listed):\n%s", diff)
	}
	if got.Message.UUID != "1" || string(got.Message.Payload) != "1" || got.Key() != e.key("1") {
		e.Errorf("listed %q with %q, key %+v", got.Message.UUID, got.Message.Payload, got.Key())
	}
	got.Message, want.Message = nil, nil
	if diff := cmp.Diff(want, got); diff != "" {
		e.Errorf("failure (-poisoned +listed):\n%s", diff)
	}
	e.quiet(ch)
}

func poisonedAreListedOldestFirst(e *env) {
	tr := e.open()
	e.subscribe(tr, e.sub("s", "a"))
	e.subscribe(tr, e.sub("other", "a"))
	e.wantPoisoned(tr, "s")
	e.poison(tr, "s", "c", "a", "b")
	e.poison(tr, "other", "x")
	e.wantPoisoned(tr, "s", "c", "a", "b")
	e.wantPoisoned(tr, "other", "x")
}

func listingChangesNothing(e *env) {
	tr := e.open()
	e.subscribe(tr, e.sub("s", "a"))
	ids := numbers(20)
	e.poison(tr, "s", ids...)
	e.wantPoisoned(tr, "s", ids...)
	for _, err := range poisonOf(tr).Poisoned(e.Context(), e.name("s")) {
		if err != nil {
			e.Fatal(err)
		}
		break // in the middle
	}
	e.wantPoisoned(tr, "s", ids...)
	e.wantPoisoned(e.open(), "s", ids...)
	first := e.list(tr, "s")[0]
	first.Message.Payload[0] = 'x'
	first.Message.Metadata["mine"] = "x"
	again := e.list(tr, "s")[0]
	if string(again.Message.Payload) != "1" || again.Message.Metadata["mine"] != "" {
		e.Error("what was listed is not a copy")
	}
}

func copiesOfPoisonedAreOne(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.wide("s", "a"))
	e.poison(tr, "s", "1", "2", "1", "3", "1")
	e.wantPoisoned(tr, "s", "1", "2", "3")
	e.wantCount(1)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), e.key("1")))
	e.wantPoisoned(tr, "s", "2", "3")
	e.poison(tr, "s", "2")
	e.wantCount(1)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), e.key("2")))
	e.wantPoisoned(tr, "s", "3")
	e.receiveIDs(ch, "2")[0].Ack() // with or without its copy
}

func requeuedPoisonStartsAfresh(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.sub("s", "a"))
	published := e.newMessage("1")
	published.Metadata["ce_type"] = "not.the.topic"
	published.Metadata["mine"] = "kept"
	if err := tr.Publish(e.topic("a"), published); err != nil {
		e.Fatal(err)
	}
	msg := e.receive(ch)
	msg.Metadata[transports.HeaderRedeliveries] = "2"
	transports.WritePoisoned(transports.Poisoned{Message: msg, Reason: "no", Attempts: 5, FirstFailure: time.Now(), LastFailure: time.Now()})
	if err := poisonOf(tr).Poison(e.Context(), e.name("s"), msg); err != nil {
		e.Fatal(err)
	}
	msg.Ack()
	e.wantCount(1)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), e.key("1")))
	e.wantPoisoned(tr, "s")

	got := e.receive(ch)
	if topic := transports.Topic(got); topic != e.topic("a") {
		e.Errorf("the topic is %q", topic)
	}
	delete(got.Metadata, transports.HeaderTopic)
	if diff := cmp.Diff(published.Metadata, got.Metadata); diff != "" {
		e.Errorf("metadata (-published +requeued):\n%s", diff)
	}
	if got.UUID != "1" || string(got.Payload) != "1" {
		e.Errorf("received %q with %q", got.UUID, got.Payload)
	}
	got.Ack()
	e.quiet(ch)
}

func requeuedPoisonReachesOneSubscription(e *env) {
	tr := e.open()
	ch, other := e.subscribe(tr, e.wide("s", "a")), e.subscribe(tr, e.wide("other", "a"))
	e.poison(tr, "s", "1", "2", "3", "4")
	e.poison(tr, "other", "2")
	keys := []transports.EventKey{e.key("4"), e.key("2"), e.key("unknown")}
	e.wantCount(2)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), keys...))
	e.ackIDs(ch, "2", "4")
	e.wantPoisoned(tr, "s", "1", "3")
	e.wantPoisoned(tr, "other", "2")
	e.quiet(ch, other)
}

func discardedPoisonIsGone(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.wide("s", "a"))
	e.poison(tr, "s", "1", "2", "3", "4")
	keys := []transports.EventKey{e.key("4"), e.key("2"), e.key("unknown")}
	e.wantCount(2)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), keys...))
	e.wantCount(0)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), keys...))
	e.wantCount(0)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s")))
	e.wantPoisoned(tr, "s", "1", "3")
	e.wantCount(2)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), e.key("1"), e.key("3")))
	e.wantPoisoned(tr, "s")
	e.quiet(ch)
}

func poisonOfOtherSourcesIsLeft(e *env) {
	tr := e.open()
	e.subscribe(tr, e.sub("s", "a"))
	e.poison(tr, "s", "1")
	elsewhere := transports.EventKey{Source: "elsewhere", ID: "1"}
	e.wantCount(0)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), elsewhere))
	e.wantCount(0)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), elsewhere))
	e.wantPoisoned(tr, "s", "1")
}

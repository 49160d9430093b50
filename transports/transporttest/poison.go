package transporttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
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
	{"what is poisoned again after a listing is left alone", []Feature{PoisonQueue}, poisonedAgainIsLeft},
	{"poisoned messages without an id are chosen one by one", []Feature{PoisonQueue}, poisonedWithoutIDAreChosen},
	{"identical poisoned messages are chosen by number", []Feature{PoisonQueue}, identicalPoisonedAreChosen},
	{"poisoned messages of one id and other content are chosen one by one", []Feature{PoisonQueue}, poisonedOfOneIDAreChosen},
	{"poisoned messages are listed by page", []Feature{PoisonQueue}, poisonedAreListedByPage},
	{"a malformed handle is refused", []Feature{PoisonQueue}, malformedHandleIsRefused},
	{"listing keeps the order", []Feature{PoisonQueue}, listingKeepsTheOrder},
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
		e.store(tr, subscription, msg)
	}
}

// store puts a message into a poison queue as it is.
func (e *env) store(tr transports.Transport, subscription string, msg *message.Message) {
	e.Helper()
	if err := poisonOf(tr).Poison(e.Context(), e.name(subscription), msg); err != nil {
		e.Fatalf("poison %s: %v", msg.UUID, err)
	}
}

// storeBare puts messages without an id, with these payloads, into the poison queue of s,
// as a broker does that gives them up itself.
func (e *env) storeBare(tr transports.Transport, payloads ...string) {
	e.Helper()
	for _, payload := range payloads {
		msg := e.newMessage("")
		msg.Payload = []byte(payload)
		transports.SetTopic(msg, e.topic("a"))
		e.store(tr, "s", msg)
	}
}

func (e *env) list(tr transports.Transport, subscription string) []transports.Poisoned {
	e.Helper()
	return e.listPage(tr, subscription, transports.PoisonPage{})
}

func (e *env) listPage(tr transports.Transport, subscription string, page transports.PoisonPage) []transports.Poisoned {
	e.Helper()
	var list []transports.Poisoned
	for p, err := range poisonOf(tr).Poisoned(e.Context(), e.name(subscription), page) {
		if err != nil {
			e.Fatalf("list poisoned messages: %v", err)
		}
		list = append(list, p)
	}
	return list
}

// handles returns the handles of the events of these ids in the poison queue of s.
func (e *env) handles(tr transports.Transport, ids ...string) []transports.PoisonHandle {
	e.Helper()
	byID := make(map[string]transports.PoisonHandle)
	for _, p := range e.list(tr, "s") {
		byID[p.Message.UUID] = p.Handle
	}
	handles := make([]transports.PoisonHandle, len(ids))
	for i, id := range ids {
		if handles[i] = byID[id]; handles[i] == "" {
			e.Fatalf("%q is not in the poison queue, or has no handle", id)
		}
	}
	return handles
}

// wantPayloads wants these payloads in the poison queue of s, oldest first.
func (e *env) wantPayloads(tr transports.Transport, payloads ...string) {
	e.Helper()
	got := []string{}
	for _, p := range e.list(tr, "s") {
		got = append(got, string(p.Message.Payload))
	}
	if diff := cmp.Diff(append([]string{}, payloads...), got); diff != "" {
		e.Fatalf("payloads in the poison queue (-want +got):\n%s", diff)
	}
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
	got.Message, want.Message, got.Handle = nil, nil, ""
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
	for _, err := range poisonOf(tr).Poisoned(e.Context(), e.name("s"), transports.PoisonPage{}) {
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
	e.wantCount(1)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), e.handles(tr, "1")...))
	e.wantPoisoned(tr, "s", "2", "3")
	e.poison(tr, "s", "2")
	e.wantCount(1)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), e.handles(tr, "2")...))
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
	e.wantCount(1)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), e.handles(tr, "1")...))
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
	gone := e.handles(tr, "1")
	e.wantCount(1)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), gone...))
	e.poison(tr, "s", "1")
	handles := append(e.handles(tr, "4", "2"), gone...)
	e.wantCount(2)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), handles...))
	e.ackIDs(ch, "2", "4")
	e.wantPoisoned(tr, "s", "3", "1")
	e.wantPoisoned(tr, "other", "2")
	e.quiet(ch, other)
}

func discardedPoisonIsGone(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.wide("s", "a"))
	e.poison(tr, "s", "1", "2", "3", "4")
	handles := e.handles(tr, "4", "2")
	e.wantCount(2)(poisonOf(e.open()).DiscardPoisoned(e.Context(), e.name("s"), handles...)) // in another process too
	e.wantCount(0)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), handles...))
	e.wantCount(0)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), handles...))
	e.wantCount(0)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s")))
	e.wantPoisoned(tr, "s", "1", "3")
	e.wantCount(2)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), e.handles(tr, "1", "3")...))
	e.wantPoisoned(tr, "s")
	e.quiet(ch)
}

// The message fails again, or a crash leaves a copy, between the listing and the operation.
func poisonedAgainIsLeft(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.wide("s", "a"))
	e.poison(tr, "s", "1", "2")
	handles := e.handles(tr, "1", "2")
	e.wantCount(1)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), handles[0]))
	e.ackIDs(ch, "1")
	e.poison(tr, "s", "1", "2")
	e.wantCount(1)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), handles...)) // the old 2
	e.wantPoisoned(tr, "s", "1", "2")
	e.wantCount(0)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), handles...))
	e.wantPoisoned(tr, "s", "1", "2")
	e.quiet(ch)
}

func poisonedWithoutIDAreChosen(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.wide("s", "a"))
	e.storeBare(tr, "a", "b", "c", "d", "e")
	list := e.list(tr, "s")
	if len(list) != 5 {
		e.Fatalf("%d messages listed; want 5", len(list))
	}
	e.wantCount(2)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), list[1].Handle, list[3].Handle))
	e.wantPayloads(tr, "a", "c", "e")
	e.wantCount(1)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), list[2].Handle))
	e.wantPayloads(tr, "a", "e")
	if msg := e.receive(ch); string(msg.Payload) != "c" || !msg.Ack() {
		e.Errorf("received %q; want c", msg.Payload)
	}
	e.quiet(ch)
}

func identicalPoisonedAreChosen(e *env) {
	tr := e.open()
	e.subscribe(tr, e.wide("s", "a"))
	e.storeBare(tr, "a", "a", "a", "b", "a", "a")
	list := e.list(tr, "s")
	if len(list) != 6 {
		e.Fatalf("%d messages listed; want 6", len(list))
	}
	chosen := []transports.PoisonHandle{list[0].Handle, list[1].Handle}
	e.wantCount(2)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), chosen...))
	e.wantPayloads(tr, "a", "b", "a", "a")
	e.wantCount(0)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), chosen...)) // they are gone
	e.wantPayloads(tr, "a", "b", "a", "a")
	for _, p := range list[2:] { // one call for each, as a slow redrive does
		e.wantCount(1)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), p.Handle))
	}
	e.wantPayloads(tr)
}

func poisonedOfOneIDAreChosen(e *env) {
	tr := e.open()
	ch := e.subscribe(tr, e.wide("s", "a"))
	for _, content := range []struct{ payload, source, mine string }{
		{"a", e.id, "x"}, {"b", e.id, "x"}, {"c", e.id, "x"}, {"a", e.id, "y"}, {"a", "elsewhere", "x"},
	} {
		msg := e.newMessage("1")
		msg.Payload = []byte(content.payload)
		msg.Metadata["ce_source"], msg.Metadata["mine"] = content.source, content.mine
		transports.SetTopic(msg, e.topic("a"))
		e.store(tr, "s", msg)
	}
	list := e.list(tr, "s")
	if len(list) != 5 {
		e.Fatalf("%d events listed; want 5", len(list))
	}
	e.wantCount(2)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), list[0].Handle, list[1].Handle))
	e.wantPayloads(tr, "c", "a", "a")
	e.wantCount(1)(poisonOf(tr).RequeuePoisoned(e.Context(), e.name("s"), list[4].Handle))
	e.wantPayloads(tr, "c", "a")
	if msg := e.receive(ch); msg.Metadata["ce_source"] != "elsewhere" || !msg.Ack() {
		e.Errorf("received that of %q; want the one from elsewhere", msg.Metadata["ce_source"])
	}
}

func poisonedAreListedByPage(e *env) {
	tr := e.open()
	e.subscribe(tr, e.sub("s", "a"))
	ids := numbers(7)
	e.poison(tr, "s", ids...)
	e.poison(tr, "s", "2") // a copy, which is listed with the first one
	var got []string
	var page transports.PoisonPage
	for page.Limit = 3; ; {
		list := e.listPage(tr, "s", page)
		if len(list) > page.Limit {
			e.Fatalf("%d events on a page of %d", len(list), page.Limit)
		}
		for _, p := range list {
			got = append(got, p.Message.UUID)
			page.After = p.Handle
		}
		if len(list) < page.Limit {
			break
		}
	}
	if diff := cmp.Diff(ids, got); diff != "" {
		e.Fatalf("the pages (-want +got):\n%s", diff)
	}
	first := e.listPage(tr, "s", transports.PoisonPage{Limit: 2})
	e.wantCount(2)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), first[0].Handle, first[1].Handle))
	e.wantPoisoned(tr, "s", ids[2:]...) // the copy went with the first one
}

func malformedHandleIsRefused(e *env) {
	tr := e.open()
	e.subscribe(tr, e.sub("s", "a"))
	e.poison(tr, "s", "1")
	good := e.handles(tr, "1")[0]
	for _, bad := range []transports.PoisonHandle{"", "nonsense", ".", good + ".", "." + good, good + "x y"} {
		for name, call := range map[string]func(context.Context, string, ...transports.PoisonHandle) (int, error){
			"requeue": poisonOf(tr).RequeuePoisoned, "discard": poisonOf(tr).DiscardPoisoned,
		} {
			if n, err := call(e.Context(), e.name("s"), good, bad); n != 0 || !errors.Is(err, transports.ErrNoPoisoned) {
				e.Errorf("%s %q: %d, %v; want ErrNoPoisoned", name, bad, n, err)
			}
		}
	}
	for _, err := range poisonOf(tr).Poisoned(e.Context(), e.name("s"), transports.PoisonPage{After: "nonsense"}) {
		if !errors.Is(err, transports.ErrNoPoisoned) {
			e.Errorf("list after nonsense: %v; want ErrNoPoisoned", err)
		}
	}
	e.wantPoisoned(tr, "s", "1")
}

// Listings that are whole, given up in the middle, of a part, or disturbed by messages that
// come: afterwards everything is at its place.
func listingKeepsTheOrder(e *env) {
	tr := e.open()
	e.subscribe(tr, e.sub("s", "a"))
	ids := numbers(150)
	e.poison(tr, "s", ids...)
	for i := range 4 {
		e.listPage(tr, "s", transports.PoisonPage{Limit: 7})
		ctx, cancel := context.WithCancel(e.Context())
		for _, err := range poisonOf(tr).Poisoned(ctx, e.name("s"), transports.PoisonPage{}) {
			if err != nil {
				e.Fatal(err)
			}
			cancel()
			break
		}
		cancel()
		ctx, cancel = context.WithTimeout(e.Context(), time.Duration(i)*time.Millisecond)
		for _, err := range poisonOf(tr).Poisoned(ctx, e.name("s"), transports.PoisonPage{}) {
			_ = err // it may end at any moment
		}
		cancel()
		var more []string
		for k := range 20 {
			more = append(more, fmt.Sprintf("more-%d-%d", i, k))
		}
		var coming sync.WaitGroup
		coming.Go(func() {
			for _, id := range more {
				msg := e.newMessage(id)
				transports.SetTopic(msg, e.topic("a"))
				if err := poisonOf(tr).Poison(e.Context(), e.name("s"), msg); err != nil {
					e.Errorf("poison: %v", err)
				}
			}
		})
		other := e.open()
		for range 3 {
			if got := e.list(other, "s"); len(got) < len(ids) {
				e.Errorf("%d listed; want at least the %d that were there", len(got), len(ids))
			}
		}
		coming.Wait()
		ids = append(ids, more...)
		e.wantPoisoned(tr, "s", ids...)
		e.wantCount(1)(poisonOf(tr).DiscardPoisoned(e.Context(), e.name("s"), e.handles(tr, ids[40])...))
		ids = slices.Delete(ids, 40, 41)
		e.wantPoisoned(tr, "s", ids...)
	}
}

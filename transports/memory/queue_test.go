package memory

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

func publishDelayed(t *testing.T, tr *Transport, id string, delay time.Duration) {
	t.Helper()
	err := tr.PublishBatch(t.Context(), []transports.Outgoing{{Topic: "a", Message: newMessage(t.Context(), id), Delay: delay}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDelayedMessagesArriveWhenTheyAreDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{})
		ch := subscribe(t, tr, wide("s", "a"))
		start := time.Now()
		publishDelayed(t, tr, "3s", 3*time.Second)
		publishDelayed(t, tr, "1s", time.Second)
		publishDelayed(t, tr, "2s", 2*time.Second)
		publishDelayed(t, tr, "1s too", time.Second)
		publishDelayed(t, tr, "now", 0)
		publishDelayed(t, tr, "past", -time.Second)
		receiveIDs(t, ch, "now", "past")
		receiveNothing(t, ch)
		wantDepth(t, tr, "s", transports.Depth{Delayed: 4, InFlight: 2})
		if waited := time.Since(start); waited != 0 {
			t.Errorf("undelayed messages took %v", waited)
		}
		for _, want := range []struct {
			id string
			at time.Duration
		}{{"1s", time.Second}, {"1s too", time.Second}, {"2s", 2 * time.Second}, {"3s", 3 * time.Second}} {
			receiveIDs(t, ch, want.id)
			if at := time.Since(start); at != want.at {
				t.Errorf("%s arrived after %v; want %v", want.id, at, want.at)
			}
		}
	})
}

func TestDueMessageJoinsTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{})
		declare(t, tr, sub("s", "a"))
		publishDelayed(t, tr, "delayed", time.Second)
		publish(t, tr, "a", "1", "2")
		time.Sleep(time.Second)
		synctest.Wait()
		publish(t, tr, "a", "3")
		ch := subscribe(t, tr, sub("s", "a"))
		ackIDs(t, ch, "1", "2")
		receiveIDs(t, ch, "delayed")[0].Nack() // and has its place there from then on
		ackIDs(t, ch, "delayed", "3")
	})
}

func TestHugeDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{})
		ch := subscribe(t, tr, wide("s", "a"))
		publishDelayed(t, tr, "in 292 years", 1<<63-1)
		publishDelayed(t, tr, "1h", time.Hour)
		receiveNothing(t, ch)
		time.Sleep(time.Hour)
		receiveIDs(t, ch, "1h")
	})
}

func TestRequeueReachesOneSubscriptionOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{})
		failing, other := subscribe(t, tr, sub("failing", "a")), subscribe(t, tr, sub("other", "a"))
		publish(t, tr, "a", "1", "2")
		ackIDs(t, other, "1", "2")

		msg := receiveIDs(t, failing, "1")[0]
		msg.Metadata["attempts"] = "1"
		if err := tr.Requeue(t.Context(), "failing", msg, time.Minute); err != nil {
			t.Fatal(err)
		}
		msg.Metadata["attempts"] = "changed after Requeue"
		copy(msg.Payload, "x")
		msg.Ack()
		wantDepth(t, tr, "failing", transports.Depth{Delayed: 1, InFlight: 1})
		ackIDs(t, failing, "2")
		receiveNothing(t, failing)

		time.Sleep(time.Minute)
		back := receiveIDs(t, failing, "1")[0]
		if back.Metadata["attempts"] != "1" || string(back.Payload) != "1" || transports.Topic(back) != "a" {
			t.Errorf("came back as %q %v", back.Payload, back.Metadata)
		}
		back.Ack()
		receiveNothing(t, other)
		wantDepth(t, tr, "failing", transports.Depth{})
		wantDepth(t, tr, "other", transports.Depth{})
	})
}

// A requeued copy takes the place of a delivered message, so that it must not
// wait for the room that only the acknowledgement of that one makes.
func TestRequeueDoesNotWaitForRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 1})
		ch := subscribe(t, tr, sub("s", "a"))
		publish(t, tr, "a", "1")
		blocked := publishLater(t.Context(), tr, "a", "2")
		for range 3 {
			msg := receiveIDs(t, ch, "1")[0]
			if err := tr.Requeue(t.Context(), "s", msg, time.Second); err != nil {
				t.Fatal(err)
			}
			msg.Ack()
			pending(t, blocked) // the requeued one has its place again
			time.Sleep(time.Second)
		}
		ackIDs(t, ch, "1", "2")
		if err := result(t, blocked); err != nil {
			t.Error(err)
		}
	})
}

func TestDelayedMessagesSurviveTheirConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, Config{})
		dying, other := connect(t, b), connect(t, b)
		subscribe(t, dying, sub("s", "a"))
		publishDelayed(t, dying, "1", time.Minute)
		_ = dying.Close()
		time.Sleep(time.Minute)
		receiveIDs(t, subscribe(t, other, sub("s", "a")), "1")
	})
}

func TestRemoveSubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, Config{QueueSize: 4})
		ch := subscribe(t, tr, transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: 2})
		second := subscribe(t, tr, sub("s", "a"))
		publish(t, tr, "a", "1", "2", "3")
		publishDelayed(t, tr, "delayed", time.Second)
		timer := tr.broker.queues["s"].timer
		msgs := []*message.Message{receive(t, ch), receive(t, second)}
		blocked := publishLater(t.Context(), tr, "a", "blocked")
		pending(t, blocked)
		if err := tr.Poison(t.Context(), "s", msgs[0]); err != nil {
			t.Fatal(err)
		}

		if err := tr.RemoveSubscription(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		if err := result(t, blocked); err != nil {
			t.Errorf("a publisher that waited for it: %v", err)
		}
		if timer.Stop() {
			t.Error("a timer keeps the removed queue in memory")
		}
		if _, err := tr.Depth(t.Context(), "s"); !errors.Is(err, transports.ErrNoSubscription) {
			t.Errorf("Depth: %v", err)
		}

		again := subscribe(t, tr, sub("s", "b"))
		receiveNothing(t, ch) // still open: one is in flight
		msgs[0].Nack()
		wantClosed(t, ch)
		msgs[1].Ack()
		wantClosed(t, second)
		time.Sleep(time.Minute)
		receiveNothing(t, again)
		publish(t, tr, "a", "4") // no topic of the new one
		publish(t, tr, "b", "5")
		receiveIDs(t, again, "5")
		wantDepth(t, tr, "s", transports.Depth{InFlight: 1})
	})
}

// model is a queue with one consumer, as simple as can be.
type model struct {
	limit    int
	ready    []modelEntry // by place
	delayed  []modelEntry // by time, then order of adding
	offered  []modelEntry // delivered, and not received yet
	inFlight []modelEntry
	next     int
}

type modelEntry struct {
	id    string
	place int
	due   time.Time
}

func (m *model) add(id string) {
	m.next++
	m.ready = append(m.ready, modelEntry{id: id, place: m.next})
}

func (m *model) addDelayed(id string, due time.Time) {
	i := len(m.delayed)
	for i > 0 && m.delayed[i-1].due.After(due) {
		i--
	}
	m.delayed = append(m.delayed[:i], append([]modelEntry{{id: id, due: due}}, m.delayed[i:]...)...)
}

func (m *model) putBack(e modelEntry) {
	i := 0
	for i < len(m.ready) && m.ready[i].place < e.place {
		i++
	}
	m.ready = append(m.ready[:i], append([]modelEntry{e}, m.ready[i:]...)...)
}

func (m *model) settle() {
	for len(m.delayed) > 0 && !m.delayed[0].due.After(time.Now()) {
		m.add(m.delayed[0].id)
		m.delayed = m.delayed[1:]
	}
	for len(m.offered)+len(m.inFlight) < m.limit && len(m.ready) > 0 {
		m.offered, m.ready = append(m.offered, m.ready[0]), m.ready[1:]
	}
}

func (m *model) depth() transports.Depth {
	return transports.Depth{Ready: len(m.ready), Delayed: len(m.delayed), InFlight: len(m.offered) + len(m.inFlight)}
}

func TestQueueBehavesAsItsModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) { compareWithModel(t, seed) })
	}
}

func compareWithModel(t *testing.T, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	m := &model{limit: 1 + r.IntN(4)}
	tr := newTransport(t, Config{})
	s := transports.Subscription{Name: "s", Topics: []string{"a"}, Concurrency: m.limit}
	ctx, stop := context.WithCancel(t.Context())
	ch := subscribeContext(ctx, t, tr, s)
	var msgs []*message.Message // parallel to m.inFlight
	for step := range 300 {
		op := r.IntN(20)
		switch {
		case op < 5:
			id := fmt.Sprint("m", step)
			publish(t, tr, "a", id)
			m.add(id)
		case op < 7:
			id, delay := fmt.Sprint("d", step), time.Duration(1+r.IntN(5))*time.Second
			publishDelayed(t, tr, id, delay)
			m.addDelayed(id, time.Now().Add(delay))
		case op < 8:
			time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
		case op < 13 && len(m.offered) > 0:
			msgs = append(msgs, receiveIDs(t, ch, m.offered[0].id)...)
			m.inFlight, m.offered = append(m.inFlight, m.offered[0]), m.offered[1:]
		case op >= 13 && op < 19 && len(msgs) > 0:
			i := r.IntN(len(msgs))
			msg, e := msgs[i], m.inFlight[i]
			msgs = append(msgs[:i:i], msgs[i+1:]...)
			m.inFlight = append(m.inFlight[:i:i], m.inFlight[i+1:]...)
			switch op {
			case 13, 14, 15:
				msg.Ack()
			case 16, 17:
				msg.Nack()
				m.putBack(e)
			case 18:
				if err := tr.Requeue(t.Context(), "s", msg, time.Second); err != nil {
					t.Fatal(err)
				}
				m.addDelayed(e.id, time.Now().Add(time.Second))
				msg.Ack()
			}
		case op == 19 && r.IntN(5) == 0: // the consumer goes and another comes
			stop()
			synctest.Wait() // until what is on offer has gone back
			for i, msg := range msgs {
				msg.Nack()
				m.putBack(m.inFlight[i])
			}
			wantClosed(t, ch)
			for _, e := range m.offered {
				m.putBack(e)
			}
			msgs, m.inFlight, m.offered = nil, nil, nil
			ctx, stop = context.WithCancel(t.Context()) //nolint:fatcontext // each from the test's own
			ch = subscribeContext(ctx, t, tr, s)
		}
		synctest.Wait()
		m.settle()
		if got, want := depth(t, tr, "s"), m.depth(); got != want {
			t.Fatalf("seed %d, step %d: depth is %+v; want %+v", seed, step, got, want)
		}
		checkInvariants(t, tr.broker)
	}
	stop()
}

func TestNackedMessageBacksOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, Config{})
		ctx, stop := context.WithCancel(t.Context())
		ch := subscribeContext(ctx, t, connect(t, b), sub("s", "a"))
		tr := connect(t, b)
		publish(t, tr, "a", "1")
		start := time.Now()
		for range nacksAtOnce + 50 {
			receive(t, ch).Nack()
		}
		msg := receive(t, ch)
		if took := time.Since(start); took != 51*nackDelay {
			t.Errorf("nacked %d times in %v; want %v", nacksAtOnce+50, took, 51*nackDelay)
		}
		stop() // what an ending consumer nacks goes to another at once
		synctest.Wait()
		start = time.Now()
		msg.Nack()
		wantClosed(t, ch)
		ackIDs(t, subscribe(t, tr, sub("s", "a")), "1")
		if took := time.Since(start); took != 0 {
			t.Errorf("another consumer has it after %v", took)
		}
	})
}

package rabbitmq

import (
	"strconv"
	"testing"
	"time"

	"github.com/gotidings/tidings/transports"
)

// Of many acknowledgements, the broker dropped those that it had not passed on to the queue
// when the channel was closed.
func TestManyPoisonedAreTakenOut(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	b.subscribe(b.Transport, s)
	const n = 250
	poison := func() (handles []transports.PoisonHandle) {
		for i := range n {
			msg := newMessage(t, strconv.Itoa(i))
			transports.WritePoisoned(transports.Poisoned{Message: msg, Reason: "test", LastFailure: time.Now()})
			if err := b.Poison(t.Context(), s.Name, msg); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range b.list(s.Name) {
			handles = append(handles, p.Handle)
		}
		return handles
	}
	left := func() int { return len(b.list(s.Name)) }
	if moved, err := b.RequeuePoisoned(t.Context(), s.Name, poison()...); moved != n || err != nil {
		t.Errorf("moved %d of %d, error %v", moved, n, err)
	}
	if n := left(); n != 0 {
		t.Errorf("%d events that were moved are poisoned still", n)
	}
	if gone, err := b.DiscardPoisoned(t.Context(), s.Name, poison()[:n/2]...); gone != n/2 || err != nil {
		t.Errorf("discarded %d of %d, error %v", gone, n/2, err)
	}
	if l := left(); l != n-n/2 {
		t.Errorf("%d are left, want %d", l, n-n/2)
	}
}

// An event that fails again at once is moved once by one call, and not round and round.
func TestRequeueDoesNotGoRound(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s := b.sub("s", 1)
	in := b.subscribe(b.Transport, s)
	done := make(chan int)
	go func() { // a handler that fails of everything
		n := 0
		for msg := range in {
			n++
			if err := b.Poison(b.Context(), s.Name, msg); err != nil {
				t.Error(err)
			}
			msg.Ack()
			if string(msg.Payload) == "end" {
				break
			}
		}
		done <- n
	}()
	const n = 40
	var handles []transports.PoisonHandle
	for i := range n {
		msg := newMessage(t, strconv.Itoa(i))
		if err := b.Poison(t.Context(), s.Name, msg); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range b.list(s.Name) {
		handles = append(handles, p.Handle)
	}
	if moved, err := b.RequeuePoisoned(t.Context(), s.Name, handles...); moved != n || err != nil {
		t.Errorf("moved %d of %d, error %v", moved, n, err)
	}
	b.publish("end")
	if got := <-done; got != n+1 {
		t.Errorf("handled %d times, want %d", got, n+1)
	}
}

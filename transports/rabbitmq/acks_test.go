package rabbitmq

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeBroker keeps what RabbitMQ keeps of a channel's deliveries, and fails as it does.
type fakeBroker struct {
	mu      sync.Mutex // guards what follows
	pending []uint64   // delivered and not settled, in order
	calls   []string
	gone    map[uint64]string
	fault   error
}

func (b *fakeBroker) settle(tag uint64, multiple bool, how string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, fmt.Sprint(how, " ", tag, " ", multiple))
	for i, pending := range b.pending {
		if pending != tag {
			continue
		}
		first := i
		if multiple {
			first = 0
		}
		for _, settled := range b.pending[first : i+1] {
			b.gone[settled] = how
		}
		b.pending = append(b.pending[:first:first], b.pending[i+1:]...)
		return nil
	}
	b.fault = fmt.Errorf("PRECONDITION_FAILED - unknown delivery tag %d", tag)
	return b.fault
}

func (b *fakeBroker) Ack(tag uint64, multiple bool) error { return b.settle(tag, multiple, "ack") }

func (b *fakeBroker) Nack(tag uint64, multiple, _ bool) error { return b.settle(tag, multiple, "nack") }

func (b *fakeBroker) Reject(tag uint64, _ bool) error { return b.settle(tag, false, "reject") }

func newFakeBroker(n uint64) *fakeBroker {
	b := &fakeBroker{gone: make(map[uint64]string)}
	for tag := uint64(1); tag <= n; tag++ {
		b.pending = append(b.pending, tag)
	}
	return b
}

// manualAcks are acks that send only when they are told to, with a ring that grows and goes
// round soon.
func manualAcks(b *fakeBroker) *acks {
	return &acks{ch: b, wake: make(chan struct{}, 1), ahead: make([]ackState, 1)}
}

func TestAcksInARowAreOne(t *testing.T) {
	t.Parallel()
	b := newFakeBroker(10)
	a := manualAcks(b)
	flush := func(tags ...uint64) {
		for _, tag := range tags {
			a.ack(tag)
		}
		a.flush()
	}
	flush(3, 2, 1)
	flush(5, 7) // 4 is missing
	flush(4)    // 5 was told already, so the row ends at 4 for the broker
	a.giveBack(6, untouched)
	a.flush()
	flush(9, 8)
	a.flush() // nothing to say
	want := []string{"ack 3 true", "ack 5 false", "ack 7 false", "ack 4 false", "nack 6 false", "ack 9 true"}
	if diff := cmp.Diff(want, b.calls); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint64{10}, b.pending); diff != "" || b.fault != nil {
		t.Errorf("%v; still pending (-want +got):\n%s", b.fault, diff)
	}
}

// Whatever the order, each message is settled as it was, and no tag is unknown to the
// broker, which would close the channel.
func TestAcksInAnyOrder(t *testing.T) {
	t.Parallel()
	for range 300 {
		n := 1 + rand.N(60)
		b := newFakeBroker(uint64(n))
		a := manualAcks(b)
		want := make(map[uint64]string)
		order := rand.Perm(n)
		if rand.N(2) == 0 { // nearly in a row, as usual
			for i := range order {
				order[i] = i
			}
			for range n / 4 {
				i := rand.N(n)
				j := min(n-1, i+rand.N(4))
				order[i], order[j] = order[j], order[i]
			}
		}
		for _, i := range order {
			tag := uint64(i) + 1
			switch rand.N(10) {
			case 0:
				want[tag] = "nack"
				a.giveBack(tag, untouched)
			case 1:
				want[tag] = "reject"
				a.giveBack(tag, refused)
			default:
				want[tag] = "ack"
				a.ack(tag)
			}
			if rand.N(3) == 0 {
				a.flush()
			}
		}
		a.flush()
		if diff := cmp.Diff(want, b.gone); diff != "" || b.fault != nil {
			t.Fatalf("order %v: %v; settled (-want +got):\n%s", order, b.fault, diff)
		}
		if a.known != 0 || a.floor != uint64(n) {
			t.Fatalf("order %v: %d tags are kept, floor %d", order, a.known, a.floor)
		}
	}
}

// All others go by while one message is held, and what that takes is given back.
func TestAcksGoByAMessageThatIsHeld(t *testing.T) {
	t.Parallel()
	const n = 2 * keepRing
	var calls []string
	a := &acks{ch: ackFunc(func(tag uint64, multiple bool) { calls = append(calls, fmt.Sprint(tag, " ", multiple)) }), wake: make(chan struct{}, 1), ahead: make([]ackState, smallRing)}
	var want []string
	for tag := uint64(2); tag <= n; tag++ {
		a.ack(tag)
		want = append(want, fmt.Sprint(tag, " ", false))
		if tag%1000 == 0 {
			a.flush()
		}
	}
	a.flush()
	a.ack(1)
	a.ack(n + 1) // is in a row with those that were told
	a.flush()
	want = append(want, fmt.Sprint(n+1, " ", true))
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if a.floor != n+1 || a.known != 0 || len(a.ahead) != smallRing {
		t.Errorf("floor %d, %d tags known, room for %d", a.floor, a.known, len(a.ahead))
	}
}

// ackFunc takes acknowledgements, and no refusals.
type ackFunc func(tag uint64, multiple bool)

func (f ackFunc) Ack(tag uint64, multiple bool) error {
	f(tag, multiple)
	return nil
}

func (ackFunc) Nack(uint64, bool, bool) error { panic("a message is given back") }

func (ackFunc) Reject(uint64, bool) error { panic("a message is refused") }

func TestAcksAreSentBySignal(t *testing.T) {
	t.Parallel()
	b := newFakeBroker(100)
	a := newAcks(b)
	var settling sync.WaitGroup
	for tag := uint64(1); tag <= 100; tag++ {
		settling.Go(func() { a.ack(tag) })
	}
	settling.Wait()
	a.flush() // waits for the sender, and sends what it has left
	a.close()
	if len(b.pending) != 0 || b.fault != nil {
		t.Errorf("%v; %d are pending", b.fault, len(b.pending))
	}
}

package rabbitmq

import (
	"runtime"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// acks sends the acknowledgements of one channel. It belongs to that channel for good:
// on another one, the same delivery tag is another message. What is settled while it
// writes goes out together next time, messages in a row as one acknowledgement.
type acks struct {
	ch   acknowledger
	wake chan struct{} // a signal that there is something to send
	stop chan struct{}
	done sync.WaitGroup

	sendMu sync.Mutex // held while sending; taken before mu

	mu       sync.Mutex // guards what follows
	acked    []uint64   // to be sent
	returned []giveBack // to be sent

	spareAcked    []uint64   // sent, to be used again; guarded by sendMu, as the next two are
	spareReturned []giveBack // sent, to be used again
	sent          int        // acknowledgements, each of one or more messages

	// Of sending, guarded by sendMu. floor is the highest tag up to which all are
	// settled; ahead are the states of those beyond it, a ring by tag, of which known are
	// not unsettled.
	floor uint64
	ahead []ackState
	known int
}

// smallRing is how many tags ahead begins with, and keepRing how many it may keep once it
// is empty. It is as long as the way from the oldest message in flight to the latest,
// which has no limit: while one is held for minutes, all others go by.
const (
	smallRing = 64
	keepRing  = 64 << 10
)

// ackState is what is known of a delivery.
type ackState uint8

const (
	unsettled ackState = iota
	acked              // and the broker has to be told still
	told               // acknowledged or given back
)

// giveBack is a message that goes back to the queue.
type giveBack struct {
	tag uint64
	how returning
}

// acknowledger is the part of a channel that acks needs.
type acknowledger interface {
	Ack(tag uint64, multiple bool) error
	Nack(tag uint64, multiple, requeue bool) error
	Reject(tag uint64, requeue bool) error
}

var _ acknowledger = (*amqp.Channel)(nil)

func newAcks(ch acknowledger) *acks {
	a := &acks{ch: ch, wake: make(chan struct{}, 1), stop: make(chan struct{}), ahead: make([]ackState, smallRing)}
	a.done.Go(a.run)
	return a
}

func (a *acks) ack(tag uint64) {
	a.mu.Lock()
	a.acked = append(a.acked, tag)
	a.mu.Unlock()
	a.signal()
}

func (a *acks) giveBack(tag uint64, how returning) {
	a.mu.Lock()
	a.returned = append(a.returned, giveBack{tag, how})
	a.mu.Unlock()
	a.signal()
}

func (a *acks) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *acks) run() {
	for {
		select {
		case <-a.wake:
			runtime.Gosched() // receivers that are about to settle come along
			a.flush()
		case <-a.stop:
			return
		}
	}
}

// flush sends what is settled, and returns how many acknowledgements were sent on this
// channel. Errors are those of a lost channel, from which the broker takes everything back.
func (a *acks) flush() int {
	a.sendMu.Lock()
	defer a.sendMu.Unlock()
	a.mu.Lock()
	newAcked, newReturned := a.acked, a.returned
	a.acked, a.returned = a.spareAcked[:0], a.spareReturned[:0]
	a.mu.Unlock()
	a.spareAcked, a.spareReturned = newAcked, newReturned

	for _, back := range newReturned {
		if back.how == refused {
			_ = a.ch.Reject(back.tag, true)
		} else {
			_ = a.ch.Nack(back.tag, false, true)
		}
		*a.state(back.tag) = told
	}
	for _, tag := range newAcked {
		*a.state(tag) = acked
	}
	a.known += len(newReturned) + len(newAcked)
	// The row that begins behind the floor is one acknowledgement, of its last message
	// that the broker waits for.
	last, untold := uint64(0), 0
	for {
		next := a.state(a.floor + 1)
		if *next == unsettled {
			break
		}
		a.floor++
		if *next == acked {
			last = a.floor
			untold++
		}
		*next = unsettled // of the tag that has this place next
		a.known--
	}
	if untold > 0 {
		_ = a.ch.Ack(last, untold > 1)
		a.sent++
	}
	for _, tag := range newAcked {
		if tag > a.floor {
			_ = a.ch.Ack(tag, false)
			a.sent++
			*a.state(tag) = told
		}
	}
	if a.known == 0 && len(a.ahead) > keepRing {
		a.ahead = make([]ackState, smallRing)
	}
	return a.sent
}

// state returns the place of a tag beyond the floor, where every tag is until it is
// settled, which it is once.
func (a *acks) state(tag uint64) *ackState {
	for tag-a.floor > uint64(len(a.ahead)) {
		bigger := make([]ackState, 2*len(a.ahead))
		for t := a.floor + 1; t <= a.floor+uint64(len(a.ahead)); t++ {
			bigger[t%uint64(len(bigger))] = a.ahead[t%uint64(len(a.ahead))]
		}
		a.ahead = bigger
	}
	return &a.ahead[tag%uint64(len(a.ahead))]
}

// close ends the sending, once.
func (a *acks) close() {
	close(a.stop)
	a.done.Wait()
}

package rabbitmq

import (
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

	mu     sync.Mutex // guards what follows
	acked  []uint64   // to be sent
	nacked []uint64   // to be sent

	// Of sending, guarded by sendMu. floor is the highest tag up to which all are
	// settled; ahead are those beyond it, with whether the broker has to be told still.
	floor uint64
	ahead map[uint64]bool
}

// acknowledger is the part of a channel that acks needs.
type acknowledger interface {
	Ack(tag uint64, multiple bool) error
	Nack(tag uint64, multiple, requeue bool) error
}

var _ acknowledger = (*amqp.Channel)(nil)

func newAcks(ch acknowledger) *acks {
	a := &acks{ch: ch, wake: make(chan struct{}, 1), stop: make(chan struct{}), ahead: make(map[uint64]bool)}
	a.done.Go(a.run)
	return a
}

func (a *acks) ack(tag uint64) {
	a.mu.Lock()
	a.acked = append(a.acked, tag)
	a.mu.Unlock()
	a.signal()
}

func (a *acks) nack(tag uint64) {
	a.mu.Lock()
	a.nacked = append(a.nacked, tag)
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
			a.flush()
		case <-a.stop:
			return
		}
	}
}

// flush sends what is settled. Errors are those of a lost channel, from which the broker
// takes everything back.
func (a *acks) flush() {
	a.sendMu.Lock()
	defer a.sendMu.Unlock()
	a.mu.Lock()
	acked, nacked := a.acked, a.nacked
	a.acked, a.nacked = nil, nil
	a.mu.Unlock()

	for _, tag := range nacked {
		_ = a.ch.Nack(tag, false, true)
		a.ahead[tag] = false
	}
	for _, tag := range acked {
		a.ahead[tag] = true
	}
	// The row that begins behind the floor is one acknowledgement, of its last message
	// that the broker waits for.
	last, untold := uint64(0), 0
	for {
		tell, settled := a.ahead[a.floor+1]
		if !settled {
			break
		}
		a.floor++
		delete(a.ahead, a.floor)
		if tell {
			last = a.floor
			untold++
		}
	}
	if untold > 0 {
		_ = a.ch.Ack(last, untold > 1)
	}
	for _, tag := range acked {
		if a.ahead[tag] {
			_ = a.ch.Ack(tag, false)
			a.ahead[tag] = false
		}
	}
}

// close ends the sending, once.
func (a *acks) close() {
	close(a.stop)
	a.done.Wait()
}

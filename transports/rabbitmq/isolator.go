package rabbitmq

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// isolator publishes one message at a time, on a channel of its own. When the broker closes
// the channel, the refusal is known to be of that message, and no other is in doubt. It gets
// what a lane had in doubt when the broker refused a part of it, messages to addresses that
// were refused lately, and one message at a time of those that a queue did not take.
//
//	lanes ── in doubt ───────────┐
//	publisher ── refused lately ─┼─► jobs ─► publish one, wait ─► result ─► the rest of the call, to a lane
//	publisher ── nacked ─────────┘
type isolator struct {
	conn    *connection
	log     *slog.Logger
	declare func(*amqp.Channel) error
	out     *publisher

	mu   sync.Mutex // guards jobs
	jobs []job
	wake chan struct{} // a signal that there is a job

	stalled chan struct{} // one for each message that has no answer yet, and a channel to itself

	// What follows is run's.
	ch       *amqp.Channel // nil while none is needed
	returns  chan amqp.Return
	closed   chan *amqp.Error
	refusals int // in a row
}

// job is a part of a call.
type job struct {
	call    *call
	indexes []int
	last    bool // the lane has left the call, so the rest of it goes to a lane afterwards
}

const (
	isolatorIdle  = time.Second            // after which the channel is closed
	refusalDelay  = 100 * time.Millisecond // after the second refusal in a row; doubled after each further one
	refusalAtMost = 500 * time.Millisecond
	stalledAfter  = 5 * time.Second // a refusal comes at once, so a message without an answer was not refused
	stalledAtMost = 16
)

func newIsolator(conn *connection, log *slog.Logger, declare func(*amqp.Channel) error, out *publisher) *isolator {
	return &isolator{
		conn: conn, log: log, declare: declare, out: out,
		wake: make(chan struct{}, 1), stalled: make(chan struct{}, stalledAtMost),
	}
}

// add never blocks.
func (o *isolator) add(j job) {
	o.mu.Lock()
	o.jobs = append(o.jobs, j)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *isolator) next() (job, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.jobs) == 0 {
		o.jobs = nil
		return job{}, false
	}
	j := o.jobs[0]
	o.jobs = o.jobs[1:]
	return j, true
}

// run publishes until the connection is closed.
func (o *isolator) run() {
	defer o.out.ended()
	defer o.drop()
	for o.conn.ctx.Err() == nil {
		if j, ok := o.next(); ok {
			o.do(j)
			continue
		}
		var idle <-chan time.Time
		if o.ch != nil {
			idle = time.After(isolatorIdle)
		}
		select {
		case <-o.wake:
		case <-idle:
			o.drop()
		case <-o.conn.ctx.Done():
		}
	}
}

func (o *isolator) do(j job) {
	for _, i := range j.indexes {
		if j.call.wanted(i) {
			o.publish(place{j.call, i})
		}
	}
	if j.last && j.call.next < len(j.call.messages) {
		o.out.enqueue(j.call)
	}
}

// publish publishes a message until it has a result, or nobody waits for it.
func (o *isolator) publish(p place) {
	ctx := p.call.ctx
	for delay := firstDelay; o.conn.ctx.Err() == nil && p.call.wanted(p.index); {
		fresh := o.ch == nil
		if fresh {
			if err := o.open(ctx); err != nil {
				if ctx.Err() != nil || o.conn.ctx.Err() != nil {
					return
				}
				o.log.Warn("can't publish; trying again", slog.Any("error", err))
				sleep(ctx, delay)
				delay = min(2*delay, longestDelay)
				continue
			}
		}
		if o.conn.isBlocked() {
			if _, err := o.conn.wait(ctx, true); err != nil {
				return
			}
		}
		left, cause := o.send(p)
		if left { // whoever waits for its answer does the rest
			return
		}
		if cause != nil && !connectionFault(cause) && fresh {
			o.refusals++
			o.out.refused.note(p.message(), cause)
			p.call.settle(p.index, channelError(cause))
		} // and if the channel was not fresh, its exchange may have been deleted, and opening one declares it
	}
}

// open makes the channel ready.
func (o *isolator) open(ctx context.Context) error {
	if n := o.refusals - 2; n >= 0 { // a publisher that is refused in a loop must not keep the broker busy
		sleep(ctx, min(refusalDelay<<min(n, 8), refusalAtMost))
	}
	ch, err := o.conn.open(ctx, func(ch *amqp.Channel) error { return prepare(ch, o.declare) })
	if err != nil {
		return err
	}
	o.ch = ch
	o.returns = ch.NotifyReturn(make(chan amqp.Return, 1)) // that of the only message, which is there before its confirm
	o.closed = ch.NotifyClose(make(chan *amqp.Error, 1))
	return nil
}

// drop closes the channel. It does not wait for the broker: while a queue does not take a
// message, RabbitMQ may not answer on its channel at all.
func (o *isolator) drop() {
	if o.ch == nil {
		return
	}
	ch := o.ch
	o.ch = nil
	o.conn.spawn(func() { _ = ch.Close() }) // it may be lost already
}

// send publishes a message and gives it its result, or leaves it without one. When the
// channel is lost before, it returns why.
func (o *isolator) send(p place) (left bool, cause *amqp.Error) {
	m := p.message()
	confirm, err := o.ch.PublishWithDeferredConfirm(m.exchange, m.key, true, false, m.msg)
	if err != nil {
		o.drop()
		return false, amqp.ErrClosed
	}
	late := time.NewTimer(stalledAfter)
	defer late.Stop()
	stalled := o.stalled
	for {
		select {
		case <-confirm.Done():
			return false, o.conclude(p, confirm)
		case <-p.call.done: // nobody waits any more, and what comes is not the next message's
			o.drop()
			return false, nil
		case <-late.C:
		}
		select {
		case stalled <- struct{}{}: // the others have waited long enough
			o.leave(p, confirm)
			return true, nil
		default:
			late.Reset(stalledAfter)
		}
	}
}

// conclude gives a message the result that the broker has sent.
func (o *isolator) conclude(p place, confirm *amqp.DeferredConfirmation) *amqp.Error {
	if !confirm.Acked() && o.ch.IsClosed() {
		cause, ok := <-o.closed
		o.drop()
		if !ok {
			return amqp.ErrClosed
		}
		return cause
	}
	o.refusals = 0
	o.out.refused.forget(p.message())
	select {
	case <-o.returns:
		p.call.settle(p.index, errReturned)
		return nil
	default:
	}
	if confirm.Acked() {
		p.call.settle(p.index, nil)
		return nil
	}
	p.call.nack(p.index, nil)
	o.drop() // the next try is on another channel, see lane.renew
	return nil
}

// leave lets a message have the channel to itself, until the broker answers or nobody waits.
func (o *isolator) leave(p place, confirm *amqp.DeferredConfirmation) {
	alone := &isolator{conn: o.conn, out: o.out, ch: o.ch, returns: o.returns, closed: o.closed}
	o.ch = nil
	o.conn.spawn(func() {
		defer func() { <-o.stalled }()
		defer alone.drop()
		select {
		case <-p.call.done:
		case <-confirm.Done():
			if alone.conclude(p, confirm) != nil { // in doubt
				o.add(job{call: p.call, indexes: []int{p.index}})
			}
		}
	})
}

// refusals are the addresses to which messages were refused lately. Messages to them go to
// the isolator, for each further refusal would close a lane's channel.
type refusals struct {
	mu        sync.Mutex // taken to change what follows
	addresses atomic.Pointer[map[address]time.Time]
}

// address is where a message goes.
type address struct{ exchange, key string }

func (m *outgoing) address() address { return address{m.exchange, m.key} }

const (
	refusedFor    = time.Minute // since the last refusal
	refusedAtMost = 256
)

// note notes a refusal because of the address: missing rights, or an exchange that is missing.
func (r *refusals) note(m *outgoing, cause *amqp.Error) {
	if cause.Code == amqp.AccessRefused || cause.Code == amqp.NotFound {
		r.change(func(addresses map[address]time.Time) {
			if len(addresses) >= refusedAtMost {
				for a := range addresses { // any of them
					delete(addresses, a)
					break
				}
			}
			addresses[m.address()] = time.Now().Add(refusedFor)
		})
	}
}

// forget takes note that messages to an address are taken.
func (r *refusals) forget(m *outgoing) {
	if r.has(m) {
		r.change(func(addresses map[address]time.Time) { delete(addresses, m.address()) })
	}
}

func (r *refusals) change(f func(map[address]time.Time)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	addresses := make(map[address]time.Time)
	if current := r.addresses.Load(); current != nil {
		maps.Copy(addresses, *current)
	}
	maps.DeleteFunc(addresses, func(_ address, until time.Time) bool { return time.Now().After(until) })
	f(addresses)
	if len(addresses) == 0 {
		r.addresses.Store(nil)
		return
	}
	r.addresses.Store(&addresses)
}

func (r *refusals) has(m *outgoing) bool {
	addresses := r.addresses.Load()
	if addresses == nil {
		return false
	}
	until, ok := (*addresses)[m.address()]
	return ok && time.Now().Before(until)
}

// in returns which messages are to addresses that were refused lately.
func (r *refusals) in(messages []outgoing) (indexes []int) {
	if r.addresses.Load() == nil {
		return nil
	}
	for i := range messages {
		if r.has(&messages[i]) {
			indexes = append(indexes, i)
		}
	}
	return indexes
}

package rabbitmq

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// lane is one publish channel, which is reopened when it is lost. It writes the calls that
// are under way in turn, some messages of each, so that a large batch does not hold up
// the others.
//
// What was sent and not confirmed when a connection is lost is sent again with the same id:
// it may arrive twice, and never not at all. When the broker has closed the channel because
// it refuses a message, it does not say which one, so what was not confirmed goes to the
// isolator and the lane goes on with the rest.
//
//	queue ─► active ─► write ─► broker
//	                     │ sent, in order          confirm, nack, return
//	                     └───────────► collect ◄────────────────────────
type lane struct {
	conn     *connection
	window   int
	log      *slog.Logger
	queue    chan *call
	isolator *isolator
	ended    func()

	declare func(*amqp.Channel) error // what the channel publishes to

	active []*call // that are being written, in turn
	doubt  []place // sent on a channel that was lost, in order

	opened  atomic.Int64  // when the channel was, by the clock's nanoseconds
	stale   atomic.Int64  // opened of the channel that is to be replaced
	renewal chan struct{} // a signal that stale has changed
}

// turnLength is how many messages of one call are written before it is the next one's turn.
const turnLength = 16

// place is a message in its call.
type place struct {
	call  *call
	index int
}

func (p place) message() *outgoing { return &p.call.messages[p.index] }

// sent is a message that waits for its confirm.
type sent struct {
	place
	confirm *amqp.DeferredConfirmation
}

// run publishes until the connection is closed.
func (l *lane) run() {
	defer l.ended()
	delay := firstDelay
	for l.conn.ctx.Err() == nil {
		ch, err := l.conn.channel(l.conn.ctx)
		if err == nil {
			err = prepare(ch, l.declare)
		}
		if err == nil {
			newSession(l, ch).run()
			delay = firstDelay
			continue
		}
		if l.conn.ctx.Err() == nil {
			l.log.Warn("can't publish; trying again", slog.Any("error", err))
		}
		sleep(l.conn.ctx, delay)
		delay = min(2*delay, longestDelay)
	}
}

// prepare makes a channel ready, its exchange included: it may have been deleted.
func prepare(ch *amqp.Channel, declare func(*amqp.Channel) error) error {
	err := declare(ch)
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		_ = ch.Close() // it may be closed already, by err
	}
	return err
}

const (
	renewAge  = 3 * time.Second // of a channel before it is replaced
	drainTime = 5 * time.Second // for the confirms of a channel that is to be replaced
)

// renew replaces the channel that was opened then. RabbitMQ 3.10 nacks every message to a
// quorum queue on a channel whose first message to it met the election of a leader, for
// minutes, while other channels get theirs through.
func (l *lane) renew(opened int64) {
	if l.opened.Load() != opened || time.Now().UnixNano()-opened < int64(renewAge) {
		return
	}
	l.stale.Store(opened)
	select {
	case l.renewal <- struct{}{}:
	default:
	}
}

// session is a lane's life on one channel.
type session struct {
	*lane
	ch      *amqp.Channel
	since   int64         // when the channel was opened
	tokens  chan struct{} // one for each place in the window that is taken
	sent    chan sent     // in the order of sending
	returns chan amqp.Return
	closed  chan *amqp.Error
	cause   *amqp.Error // why the channel was closed, once it is

	lost []place // unconfirmed when the channel was lost; the collector's until it ends
}

func newSession(l *lane, ch *amqp.Channel) *session {
	s := &session{
		lane: l, ch: ch, since: time.Now().UnixNano(),
		tokens:  make(chan struct{}, l.window),
		sent:    make(chan sent, l.window),
		returns: ch.NotifyReturn(make(chan amqp.Return)), // without a buffer: taken before the confirm that follows it
		closed:  ch.NotifyClose(make(chan *amqp.Error, 1)),
	}
	l.opened.Store(s.since)
	return s
}

// run publishes until the channel is lost or to be replaced, and leaves what is in doubt to
// the lane's next channel, or to the isolator when the broker has refused a part of it.
func (s *session) run() {
	var collector sync.WaitGroup
	collector.Go(s.collect)
	unwritten := s.write()
	close(s.sent)
	_ = s.ch.Close() // it may be lost already; the collector ends with it
	collector.Wait()
	for err := range s.closed {
		s.cause = err
	}
	s.doubt = slices.Concat(s.lost, unwritten)
	if s.cause != nil && !connectionFault(s.cause) && len(s.lost) > 0 {
		s.log.Warn("the broker has closed a publish channel because of a message", slog.Any("error", s.cause))
		s.isolate()
	}
}

// isolate gives what is in doubt to the isolator. The calls that it is part of wait for it,
// so that their messages keep their order.
func (s *session) isolate() {
	for len(s.doubt) > 0 {
		j := job{call: s.doubt[0].call, last: true}
		s.doubt = slices.DeleteFunc(s.doubt, func(p place) bool {
			if p.call != j.call {
				return false
			}
			j.indexes = append(j.indexes, p.index)
			return true
		})
		s.active = slices.DeleteFunc(s.active, func(c *call) bool { return c == j.call })
		s.isolator.add(j)
	}
}

// write sends what is in doubt, then what comes. It returns what was in doubt and could
// not be written.
func (s *session) write() (unwritten []place) {
	for i, p := range s.doubt {
		if !s.put(p) {
			return s.doubt[i:]
		}
	}
	for s.admit() {
		kept := s.active[:0]
		for i, c := range s.active {
			if !s.writeSome(c) {
				s.active = append(kept, s.active[i:]...)
				return nil
			}
			if c.next < len(c.messages) {
				kept = append(kept, c)
			}
		}
		clear(s.active[len(kept):])
		s.active = kept
	}
	return nil
}

// admit makes the calls active that have come, and waits for one while there is none. It
// reports false when the channel is lost or was replaced.
func (s *session) admit() bool {
	for s.stale.Load() != s.since {
		if len(s.active) > 0 {
			select {
			case c := <-s.queue:
				s.active = append(s.active, c)
				continue
			default:
				return true
			}
		}
		select {
		case c := <-s.queue:
			s.active = append(s.active, c)
		case <-s.renewal:
		case s.cause = <-s.closed:
			return false
		case <-s.conn.ctx.Done():
			return false
		}
	}
	s.drain()
	return false
}

// drain waits until everything is confirmed, so that nothing is in doubt.
func (s *session) drain() {
	late := time.NewTimer(drainTime)
	defer late.Stop()
	for range s.window {
		select {
		case s.tokens <- struct{}{}:
		case s.cause = <-s.closed:
			return
		case <-late.C:
			return
		}
	}
}

// writeSome writes the next messages of a call. It reports false when the channel is lost.
func (s *session) writeSome(c *call) bool {
	for end := min(c.next+turnLength, len(c.messages)); c.next < end; c.next++ {
		if !c.isApart(c.next) && !s.put(place{c, c.next}) {
			return false
		}
	}
	return true
}

// put writes one message, waiting for its place in the window and for the broker to
// take messages. It reports false when the channel is lost.
func (s *session) put(p place) bool {
	if !p.call.wanted(p.index) {
		return true
	}
	if !s.take() {
		return false
	}
	if s.conn.isBlocked() {
		if _, err := s.conn.wait(s.conn.ctx, true); err != nil {
			return false
		}
		if !p.call.wanted(p.index) { // it was given up meanwhile
			<-s.tokens
			return true
		}
	}
	m := p.message()
	confirm, err := s.ch.PublishWithDeferredConfirm(m.exchange, m.key, true, false, m.msg)
	if err != nil {
		return false
	}
	s.sent <- sent{p, confirm}
	return true
}

// take takes a place in the window. It reports false when the channel is lost.
func (s *session) take() bool {
	select {
	case s.tokens <- struct{}{}:
		return true
	case s.cause = <-s.closed:
		return false
	}
}

// sweepEvery is how often the messages behind one without an answer are looked at.
const sweepEvery = 100 * time.Millisecond

// collect gives the messages their results: in the order of their sending, and when one gets
// no answer, those behind it all the same.
func (s *session) collect() {
	var returned []amqp.Return
	var pending []sent // in the order of sending
	returns, coming := s.returns, s.sent
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for coming != nil || len(pending) > 0 {
		var first <-chan struct{}
		var behind <-chan time.Time
		if len(pending) > 0 {
			first, behind = pending[0].confirm.Done(), sweep.C
		}
		select {
		case r, ok := <-returns:
			if !ok {
				returns = nil
				continue
			}
			returned = append(returned, r)
		case m, ok := <-coming:
			if !ok {
				coming = nil
				continue
			}
			pending = append(pending, m)
		case <-first:
			s.conclude(pending[0], &returned)
			pending = pending[1:]
		case <-behind:
			pending = slices.DeleteFunc(pending, func(m sent) bool {
				if !isAnswered(m.confirm) || !m.confirm.Acked() && s.ch.IsClosed() { // what is lost keeps its order
					return false
				}
				s.conclude(m, &returned)
				return true
			})
		}
	}
	// Until the channel is closed, or the client would wait for a receiver. Not over
	// returns, which is nil when that has happened already: it would never end.
	for range s.returns {
	}
}

func isAnswered(confirm *amqp.DeferredConfirmation) bool {
	select {
	case <-confirm.Done():
		return true
	default:
		return false
	}
}

// conclude gives a message the result that the broker has sent.
func (s *session) conclude(m sent, returned *[]amqp.Return) {
	switch {
	case !m.confirm.Acked() && s.ch.IsClosed():
		s.lost = append(s.lost, m.place)
	case !m.confirm.Acked():
		m.call.nack(m.index, s)
	case takeReturn(returned, m.message()):
		m.call.settle(m.index, errReturned)
	default:
		m.call.settle(m.index, nil)
	}
	<-s.tokens
}

// takeReturn reports whether a message was returned, and forgets the return. The broker
// sends it before the message's confirm, and does not say which message it is: it is the
// first of its id and address, in the order of sending.
func takeReturn(returned *[]amqp.Return, m *outgoing) bool {
	for i, r := range *returned {
		if r.Exchange == m.exchange && r.RoutingKey == m.key && r.MessageId == m.msg.MessageId {
			*returned = slices.Delete(*returned, i, i+1)
			return true
		}
	}
	return false
}

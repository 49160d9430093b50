package rabbitmq

import (
	"log/slog"
	"slices"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// lane is one publishing channel, made anew when it is lost. What was sent and not
// confirmed then is in doubt, and is sent again with the same id: it may arrive twice,
// and never not at all.
//
//	queue ─► write ─► broker
//	           │ sent, in order         confirm, nack, return
//	           └──────────► collect ◄────────────────────────
type lane struct {
	conn   *connection
	window int
	log    *slog.Logger
	queue  chan *call
	gone   chan struct{} // closed when the lane has ended: calls that are still in it are in vain

	declare func(*amqp.Channel) error // what the channel publishes to

	doubt []place // sent on a channel that was lost, in order
	alone bool    // the broker closed the channel because of one of them: one at a time
}

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
	defer close(l.gone)
	delay := firstDelay
	for l.conn.ctx.Err() == nil {
		ch, err := l.open()
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

// open makes the channel ready, its exchange included: it may have been deleted.
func (l *lane) open() (*amqp.Channel, error) {
	ch, err := l.conn.channel(l.conn.ctx)
	if err != nil {
		return nil, err
	}
	if err = l.declare(ch); err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		_ = ch.Close() // it may be closed already, by err
		return nil, err
	}
	return ch, nil
}

// session is a lane's life on one channel.
type session struct {
	*lane
	ch      *amqp.Channel
	tokens  chan struct{} // one for each place in the window that is taken
	sent    chan sent     // in the order of sending
	returns chan amqp.Return
	closed  chan *amqp.Error
	cause   *amqp.Error // why the channel was closed, once it is

	lost []place // unconfirmed when the channel was lost; the collector's until it ends
}

func newSession(l *lane, ch *amqp.Channel) *session {
	window := l.window
	if l.alone {
		window = 1
	}
	return &session{
		lane: l, ch: ch,
		tokens:  make(chan struct{}, window),
		sent:    make(chan sent, window),
		returns: ch.NotifyReturn(make(chan amqp.Return)), // without a buffer: taken before the confirm that follows it
		closed:  ch.NotifyClose(make(chan *amqp.Error, 1)),
	}
}

// run publishes until the channel is lost, and leaves what is in doubt in the lane.
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
	if s.cause == nil || connectionFault(s.cause) || len(s.lost) == 0 {
		s.alone = s.alone && len(s.doubt) > 0
		return
	}
	if s.alone { // then the broker had this one only, and it is the one that it refuses
		p := s.doubt[0]
		p.call.settle(p.index, channelError(s.cause))
		s.doubt = s.doubt[1:]
	}
	s.alone = true
}

// write sends what is in doubt, then what comes. It returns what was taken from the
// queue, or was in doubt, and could not be written.
func (s *session) write() (unwritten []place) {
	for i, p := range s.doubt {
		if !s.put(p) {
			return s.doubt[i:]
		}
	}
	if s.alone { // wait for the last one; the next session has the whole window
		s.take()
		return nil
	}
	for {
		select {
		case c := <-s.queue:
			for i := range c.messages {
				if !s.put(place{c, i}) {
					for ; i < len(c.messages); i++ {
						unwritten = append(unwritten, place{c, i})
					}
					return unwritten
				}
			}
		case s.cause = <-s.closed:
			return nil
		case <-s.conn.ctx.Done():
			return nil
		}
	}
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

// collect gives the messages their results, in the order of their sending.
func (s *session) collect() {
	var returned []amqp.Return
	returns := s.returns
	for m := range s.sent {
		for waiting := true; waiting; {
			select {
			case r, ok := <-returns:
				if !ok {
					returns = nil
					continue
				}
				returned = append(returned, r)
			case <-m.confirm.Done():
				waiting = false
			}
		}
		switch {
		case !m.confirm.Acked() && s.ch.IsClosed():
			s.lost = append(s.lost, m.place)
		case !m.confirm.Acked():
			m.call.settle(m.index, errNacked)
		case takeReturn(&returned, m.message()):
			m.call.settle(m.index, errReturned)
		default:
			m.call.settle(m.index, nil)
		}
		<-s.tokens
	}
	// Until the channel is closed, or the client would wait for a receiver. Not over
	// returns, which is nil when that has happened already: it would never end.
	for range s.returns {
	}
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

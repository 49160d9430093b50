package bus

import (
	"context"
	"errors"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
)

// lanes puts the messages of an ordered subscription in line, one line for each
// partition key. The line has to be formed before Watermill's router, which
// handles every message in a goroutine of its own.
type lanes struct {
	mu   sync.Mutex           // guards last
	last map[string]*laneTurn // the newest turn of each lane that has any
}

// laneTurn is a message's place in its lane.
type laneTurn struct {
	lanes *lanes
	key   string
	prev  *laneTurn     // nil for the first; forgotten when the turn has come
	done  chan struct{} // closed at the end of the turn
	back  bool          // the message went back, so those behind it must too; read after done
}

type laneKey struct{}

// formLanes gives each message that comes through in its turn. The channel that
// it returns is closed when in is.
func formLanes(in <-chan *message.Message) <-chan *message.Message {
	l := &lanes{last: make(map[string]*laneTurn)}
	out := make(chan *message.Message)
	go func() { // ends with the subscription: the router reads until out is closed
		defer close(out)
		for msg := range in {
			key := events.DecodeMetadata(msg.UUID, msg.Metadata).PartitionKey
			turn := &laneTurn{lanes: l, key: key, done: make(chan struct{})}
			l.mu.Lock()
			turn.prev = l.last[key]
			l.last[key] = turn
			l.mu.Unlock()
			msg.SetContext(context.WithValue(msg.Context(), laneKey{}, turn))
			out <- msg
		}
	}()
	return out
}

// inLane makes each message wait for its turn.
//
// A message that goes back to its subscription takes those behind it with it:
// they would overtake it otherwise. The transport puts each back in its place.
func inLane(stopping <-chan struct{}) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) (out []*message.Message, err error) {
			turn, ok := msg.Context().Value(laneKey{}).(*laneTurn)
			if !ok {
				return nil, errors.New("bus: the message was given no turn")
			}
			turn.back = true // unless it ends well: the handler may end its goroutine
			defer turn.end()
			if turn.prev != nil {
				<-turn.prev.done // ends soon after stopping, since the first in the lane does
				if turn.prev.back {
					return nil, middleware.ErrInterrupted
				}
				turn.prev = nil
			}
			select {
			case <-stopping:
				return nil, middleware.ErrInterrupted
			default:
			}
			out, err = h(msg)
			turn.back = err != nil
			return out, err
		}
	}
}

func (t *laneTurn) end() {
	t.lanes.mu.Lock()
	if t.lanes.last[t.key] == t {
		delete(t.lanes.last, t.key)
	}
	t.lanes.mu.Unlock()
	close(t.done)
}

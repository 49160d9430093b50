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
	prev  <-chan struct{} // closed at the end of the turn before; nil for the first
	done  chan struct{}   // closed at the end of this turn
}

type laneKey struct{}

// formLanes gives each message that comes through in its turn. The channel that
// it returns is closed when in is. When intake ends, a message that was not
// received yet goes back.
func formLanes(intake context.Context, in <-chan *message.Message) <-chan *message.Message {
	l := &lanes{last: make(map[string]*laneTurn)}
	out := make(chan *message.Message)
	go func() { // ends with the subscription
		defer close(out)
		for msg := range in {
			_ = unwrap(msg) // the key is inside; refuseMalformed has the error again
			turn := l.join(events.DecodeMetadata(msg.UUID, msg.Metadata).PartitionKey)
			msg.SetContext(context.WithValue(msg.Context(), laneKey{}, turn))
			select {
			case out <- msg:
			case <-intake.Done(): // so do those behind it, whose turn never comes
				msg.Nack()
			}
		}
	}()
	return out
}

func (l *lanes) join(key string) *laneTurn {
	turn := &laneTurn{lanes: l, key: key, done: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.last[key]; ok {
		turn.prev = last.done
	}
	l.last[key] = turn
	return turn
}

func (t *laneTurn) end() {
	t.lanes.mu.Lock()
	if t.lanes.last[t.key] == t {
		delete(t.lanes.last, t.key)
	}
	t.lanes.mu.Unlock()
	close(t.done)
}

// inLane makes each message wait for its turn. When the bus stops, those that
// still wait go back, and nothing may overtake them: so it looks at stopping once
// more when the turn has come, perhaps because the one before went back.
func inLane(stopping <-chan struct{}) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			turn, ok := msg.Context().Value(laneKey{}).(*laneTurn)
			if !ok {
				return nil, errors.New("bus: the message was given no turn")
			}
			defer turn.end()
			if turn.prev != nil {
				select {
				case <-turn.prev:
				case <-stopping:
				}
			}
			select {
			case <-stopping:
				return nil, middleware.ErrInterrupted
			default:
				return h(msg)
			}
		}
	}
}

package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
)

// lanes puts the messages of an ordered subscription in line, one line for each
// partition key. The line has to be formed before Watermill's router, which
// handles every message in a goroutine of its own.
//
// A message that goes back, other than at shutdown, takes those behind it with it:
// its lane is recalled. They go back one after the other, and so does what the
// transport had delivered already, until the first of them has come again and begins
// the lane anew. Else those behind would overtake it on its way.
//
//	         goes back                    comes again
//	open ────────────────► recalled ──────────────────► open
//	                           └─ recallPatience ────────►
type lanes struct {
	mu    sync.Mutex // guards all of it
	byKey map[string]*lane
}

// lane is the line of one partition key. All of it is guarded by lanes.mu.
type lane struct {
	last    *laneTurn // the newest turn; nil when all have ended
	running *laneTurn // the one whose message is being handled; nil for none

	recalled time.Time           // when it was; zero while it is open
	awaited  transports.EventKey // who begins it anew
}

// laneTurn is a message's place in its lane.
type laneTurn struct {
	lanes *lanes
	lane  *lane
	key   string
	prev  <-chan struct{} // closed at the end of the turn before; nil for the first
	done  chan struct{}   // closed at the end of this turn
	until time.Time       // when it goes back at the latest, unless it is being handled
}

type laneKey struct{}

const (
	// recallPatience is how long a recalled lane waits for the message that went back:
	// it may have been taken by another replica, or deleted.
	recallPatience = time.Minute

	// recallPause is how long a message is held that comes in the meantime: where the
	// transport delivers it before the one that went back, it would do so again at once.
	recallPause = 10 * time.Millisecond
)

// formLanes gives each message that comes through in its turn. The channel that
// it returns is closed when in is. When intake ends, a message that was not
// received yet goes back.
func formLanes(intake context.Context, in <-chan *message.Message) <-chan *message.Message {
	l := &lanes{byKey: make(map[string]*lane)}
	out := make(chan *message.Message)
	go func() { // ends with the subscription
		defer close(out)
		for msg := range in {
			_ = unwrap(msg) // the key is inside; refuseMalformed has the error again
			turn := l.join(events.DecodeMetadata(msg.UUID, msg.Metadata).PartitionKey, transports.KeyOf(msg))
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

func (l *lanes) join(key string, event transports.EventKey) *laneTurn {
	now := time.Now()
	turn := &laneTurn{lanes: l, key: key, done: make(chan struct{}), until: now.Add(inPlaceLimit)}
	l.mu.Lock()
	defer l.mu.Unlock()
	ln, ok := l.byKey[key]
	switch {
	case !ok:
		ln = &lane{}
	case ln.over(event, now):
		ln = &lane{running: ln.running} // which the new one has to wait for
	}
	l.byKey[key] = ln
	switch {
	case ln.last != nil:
		turn.prev = ln.last.done
	case ln.running != nil:
		turn.prev = ln.running.done
	}
	ln.last, turn.lane = turn, ln
	return turn
}

// over reports whether a recalled lane ends with the arrival of an event. Called with
// lanes.mu held.
func (ln *lane) over(event transports.EventKey, now time.Time) bool {
	return !ln.recalled.IsZero() && (event == ln.awaited || now.Sub(ln.recalled) > recallPatience)
}

// begin begins a turn, unless its lane is recalled.
func (t *laneTurn) begin() bool {
	t.lanes.mu.Lock()
	defer t.lanes.mu.Unlock()
	if !t.lane.recalled.IsZero() {
		return false
	}
	t.lane.running = t
	return true
}

// recall makes those behind the message go back too.
func (t *laneTurn) recall(event transports.EventKey) {
	t.lanes.mu.Lock()
	defer t.lanes.mu.Unlock()
	now := time.Now()
	if t.lane.recalled.IsZero() {
		for key, ln := range t.lanes.byKey { // forget those whose message went elsewhere
			if ln.last == nil && ln.running == nil && ln.over(transports.EventKey{}, now) {
				delete(t.lanes.byKey, key)
			}
		}
		t.lane.recalled, t.lane.awaited = now, event
	}
	// One behind it may have run out of patience before, and even have come again: it
	// is in a new lane then, where it waits for this turn.
	for _, ln := range []*lane{t.lane, t.lanes.byKey[t.key]} {
		if ln != nil && ln.running == t {
			ln.recalled, ln.awaited = now, event
		}
	}
}

func (t *laneTurn) end() {
	t.lanes.mu.Lock()
	defer t.lanes.mu.Unlock()
	if t.lane.last == t {
		t.lane.last = nil
	}
	if t.lane.running == t {
		t.lane.running = nil
	}
	if now, ok := t.lanes.byKey[t.key]; ok {
		if now.running == t { // a new lane waits for this turn
			now.running = nil
		}
		if now.last == nil && now.running == nil && now.recalled.IsZero() {
			delete(t.lanes.byKey, t.key)
		}
	}
	close(t.done)
}

// inLane makes each message wait for its turn. When the bus stops, those that
// still wait go back, and nothing may overtake them: so it looks at stopping once
// more when the turn has come, perhaps because the one before went back.
func inLane(stopping <-chan struct{}) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) (out []*message.Message, err error) {
			turn, ok := msg.Context().Value(laneKey{}).(*laneTurn)
			if !ok {
				return nil, errors.New("bus: the message was given no turn")
			}
			base := msg.Context() // the middleware further in leaves its own when it panics
			returned := false
			defer func() { // also when the goroutine ends
				msg.SetContext(base)
				if !returned || err != nil {
					turn.recall(transports.KeyOf(msg)) // before it is delivered again
					msg.Nack()                         // before those behind it
				}
				turn.end()
			}()
			if err = turn.wait(stopping); err == nil {
				out, err = h(msg)
			}
			returned = true
			return out, err
		}
	}
}

// wait waits for the turn.
func (t *laneTurn) wait(stopping <-chan struct{}) error {
	if t.prev != nil {
		patience := time.NewTimer(time.Until(t.until))
		defer patience.Stop()
		select {
		case <-t.prev:
		case <-patience.C:
			return middleware.ErrInterrupted
		case <-stopping:
		}
	}
	select {
	case <-stopping:
		return middleware.ErrInterrupted
	default:
	}
	if t.begin() {
		return nil
	}
	if t.prev == nil {
		pause := time.NewTimer(recallPause)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-stopping:
		}
	}
	return middleware.ErrInterrupted
}

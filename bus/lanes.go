package bus

import (
	"context"
	"errors"
	"slices"
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
// A message that goes back takes those behind it with it, or they would overtake it on
// its way: its lane remembers the order of those that went, and takes them in again in
// that order only. What the transport delivers out of it goes back once more.
//
//	join ──► waiting ──► running ──► end
//	             │          │ goes back
//	             ▼          ▼
//	         recalled: expected again, with all behind it
type lanes struct {
	mu    sync.Mutex // guards all of it
	byKey map[string]*lane
}

// lane is the line of one partition key. All of it is guarded by lanes.mu.
type lane struct {
	turns    []*laneTurn           // those that wait and the one that runs, oldest first
	expected []transports.EventKey // who went back, and has not come again
	since    time.Time             // when expected changed last
}

// laneTurn is a message's place in its lane.
type laneTurn struct {
	lanes    *lanes
	lane     *lane
	key      string // of the lane
	event    transports.EventKey
	prev     <-chan struct{} // closed at the end of the turn before; nil for the first
	done     chan struct{}   // closed at the end of this turn
	until    time.Time       // when it goes back at the latest, unless it is being handled
	early    bool            // it came before one that is expected; set by join
	recalled bool            // it is to go back; guarded by lanes.mu
}

type laneKey struct{}

const (
	// recallPatience is how long a lane waits for a message that went back: it may have
	// been taken by another replica, or deleted.
	recallPatience = time.Minute

	// recallPause is how long a message is held that has come too early: the transport
	// may deliver it again at once.
	recallPause = 100 * time.Millisecond
)

// formLanes gives each message that comes through in its turn. The channel that
// it returns is closed when that of in is. When ctx ends, a message that was not
// received yet goes back.
func formLanes(ctx context.Context, in intake) <-chan *message.Message {
	l := &lanes{byKey: make(map[string]*lane)}
	out := make(chan *message.Message)
	go func() { // ends with the subscription
		defer close(out)
		for msg := range in.messages {
			_ = unwrap(msg) // the key is inside; refuseMalformed has the error again
			turn := l.join(events.DecodeMetadata(msg.UUID, msg.Metadata).PartitionKey, transports.KeyOf(msg))
			msg.SetContext(context.WithValue(msg.Context(), laneKey{}, turn))
			select {
			case out <- msg:
			case <-ctx.Done(): // so do those behind it, whose turn never comes
				in.giveBack(msg)
			}
		}
	}()
	return out
}

func (l *lanes) join(key string, event transports.EventKey) *laneTurn {
	now := time.Now()
	turn := &laneTurn{lanes: l, key: key, event: event, done: make(chan struct{}), until: now.Add(inPlaceLimit)}
	l.mu.Lock()
	defer l.mu.Unlock()
	ln, ok := l.byKey[key]
	if !ok {
		ln = &lane{}
		l.byKey[key] = ln
	}
	turn.lane = ln
	if len(ln.expected) > 0 {
		switch {
		case ln.lost(now):
			ln.expected = nil
		case event == ln.expected[0]:
			ln.expected, ln.since = ln.expected[1:], now
		default:
			if !slices.Contains(ln.expected, event) { // it is behind all of them
				ln.expected = append(ln.expected, event)
			}
			turn.early = true
			return turn
		}
	}
	for _, before := range slices.Backward(ln.turns) {
		if !before.recalled { // those that are go before their turn
			turn.prev = before.done
			break
		}
	}
	ln.turns = append(ln.turns, turn)
	return turn
}

// lost reports whether those who are expected don't come any more. Called with lanes.mu
// held.
func (ln *lane) lost(now time.Time) bool { return now.Sub(ln.since) > recallPatience }

// mayBegin reports whether a turn that has come may begin.
func (t *laneTurn) mayBegin() bool {
	t.lanes.mu.Lock()
	defer t.lanes.mu.Unlock()
	return !t.recalled
}

// recall says that the message goes back, and makes those behind it go back too.
func (t *laneTurn) recall() {
	t.lanes.mu.Lock()
	defer t.lanes.mu.Unlock()
	i := slices.Index(t.lane.turns, t)
	if i < 0 || t.recalled {
		return // it was recalled by one before it, or had no turn
	}
	now := time.Now()
	for key, ln := range t.lanes.byKey { // forget those whose messages went elsewhere
		if len(ln.turns) == 0 && ln.lost(now) {
			delete(t.lanes.byKey, key)
		}
	}
	// Each event once: a copy that comes too early is put at the end.
	back := make([]transports.EventKey, 0, len(t.lane.turns)-i+len(t.lane.expected))
	expect := func(event transports.EventKey) {
		if !slices.Contains(back, event) {
			back = append(back, event)
		}
	}
	for _, turn := range t.lane.turns[i:] {
		if !turn.recalled { // else it is expected already
			turn.recalled = true
			expect(turn.event)
		}
	}
	for _, event := range t.lane.expected {
		expect(event)
	}
	t.lane.expected, t.lane.since = back, now
}

func (t *laneTurn) end() {
	t.lanes.mu.Lock()
	defer t.lanes.mu.Unlock()
	t.lane.turns = slices.DeleteFunc(t.lane.turns, func(o *laneTurn) bool { return o == t })
	if len(t.lane.turns) == 0 && len(t.lane.expected) == 0 {
		delete(t.lanes.byKey, t.key)
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
			returned := false
			defer func() { // also when the goroutine ends
				if !returned || err != nil {
					turn.recall() // before the transport can deliver it again
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
	switch {
	case t.early:
		pause := time.NewTimer(recallPause)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-stopping:
		}
		return middleware.ErrInterrupted
	case t.prev != nil:
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
	if !t.mayBegin() {
		return middleware.ErrInterrupted
	}
	return nil
}

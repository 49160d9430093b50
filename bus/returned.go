package bus

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// returned remembers what the library has noted on messages that went back: the
// transport delivers them again as they were. Without it, an event that goes back from
// time to time would begin its retries anew each time, and one of an unknown type would
// be put off for ever. It is forgotten when another replica takes the message, which is
// no worse than a crash.
type returned struct {
	size atomic.Int32 // of byEvent, so that the way of most messages takes no lock

	mu      sync.Mutex // guards byEvent
	byEvent map[transports.EventKey]note
}

type note struct {
	headers message.Metadata
	at      time.Time
}

const (
	// returnedFor is how long a note is kept: a message that goes back comes again soon,
	// and what comes much later under its id may be one that was redriven, for a fresh
	// start.
	returnedFor = time.Minute

	// maxReturned bounds the notes: no more than that are in flight.
	maxReturned = 4096
)

// keep notes what there is on a message that goes back.
func (r *returned) keep(msg *message.Message) {
	if msg.UUID == "" {
		return
	}
	headers := make(message.Metadata)
	for key, value := range msg.Metadata {
		if strings.HasPrefix(key, transports.HeaderPrefix) && key != transports.HeaderTopic {
			headers[key] = value
		}
	}
	if len(headers) == 0 {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byEvent == nil {
		r.byEvent = make(map[transports.EventKey]note)
	}
	if len(r.byEvent) >= maxReturned {
		for key, n := range r.byEvent {
			if now.Sub(n.at) > returnedFor {
				delete(r.byEvent, key)
			}
		}
	}
	if len(r.byEvent) < maxReturned {
		r.byEvent[transports.KeyOf(msg)] = note{headers, now}
	}
	r.size.Store(int32(len(r.byEvent))) //nolint:gosec // at most maxReturned
}

// restore puts it back on the message.
func (r *returned) restore(msg *message.Message) {
	if r.size.Load() == 0 {
		return
	}
	key := transports.KeyOf(msg)
	r.mu.Lock()
	n, ok := r.byEvent[key]
	delete(r.byEvent, key)
	r.size.Store(int32(len(r.byEvent))) //nolint:gosec // at most maxReturned
	r.mu.Unlock()
	if !ok || time.Since(n.at) > returnedFor {
		return
	}
	if msg.Metadata == nil {
		msg.Metadata = make(message.Metadata)
	}
	maps.Copy(msg.Metadata, n.headers)
}

package rabbitmq

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// unroutable deals with an event that no queue was bound for.
func (t *Transport) unroutable(ctx context.Context, topic string, m outgoing) error {
	if t.cfg.OnUnroutable != nil {
		t.cfg.OnUnroutable(topic)
	}
	switch t.cfg.Unroutable {
	case Refuse:
		return fmt.Errorf("%w: %q", ErrUnroutable, topic)
	case Keep:
		m.exchange = t.names.unrouted
		return t.out.publish(ctx, []outgoing{m})[0]
	}
	switch t.warned.note(topic, time.Now()) {
	case topicIsNew:
		t.log.Warn("an event has no subscription and is dropped, and so may others of its type be", slog.String("topic", topic))
	case topicsAreMany:
		t.log.Warn("events of many topics have no subscription and are dropped; no more of the topics are named for an hour")
	}
	return nil
}

const (
	maxUnrouted   = 100       // topics that are named in the log
	unroutedAgain = time.Hour // after which they are forgotten
)

// unroutedTopics is which topics without a queue the log has named lately. Topics come from
// publishers, so they can be any number.
type unroutedTopics struct {
	mu     sync.Mutex // guards what follows
	since  time.Time
	topics map[string]struct{} // up to maxUnrouted of them, and one
}

// mention is what is to be said of a topic.
type mention int

const (
	topicIsKnown mention = iota
	topicIsNew
	topicsAreMany
)

func (u *unroutedTopics) note(topic string, now time.Time) mention {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Sub(u.since) >= unroutedAgain {
		u.since, u.topics = now, make(map[string]struct{})
	}
	if _, known := u.topics[topic]; known || len(u.topics) > maxUnrouted {
		return topicIsKnown
	}
	u.topics[topic] = struct{}{}
	if len(u.topics) > maxUnrouted {
		return topicsAreMany
	}
	return topicIsNew
}

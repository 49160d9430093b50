package rabbitmq

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Topics come from publishers: what is kept and logged of those without a queue is bounded.
func TestUnroutableTopicsAreBounded(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	b := newBench(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for i := range 3 * maxUnrouted {
		for range 2 {
			publishTo(t, b.Transport, "nobody."+strconv.Itoa(i), "1")
		}
	}
	if n := len(b.warned.topics); n > maxUnrouted+1 {
		t.Errorf("%d topics are kept", n)
	}
	if n := strings.Count(log.String(), "have no subscription"); n != 1 {
		t.Errorf("the log says %d times that no more are named; want once", n)
	}
	if n := strings.Count(log.String(), "topic=nobody."); n != maxUnrouted {
		t.Errorf("%d topics are named; want %d", n, maxUnrouted)
	}
	if got := b.warned.note("another", time.Now().Add(unroutedAgain)); got != topicIsNew {
		t.Errorf("an hour later: %v; want that it is named", got)
	}
}

package realtime

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gotidings/tidings/events"
)

func md(id string) events.Metadata { return events.Metadata{ID: id, Source: "shop"} }

func TestStreamGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(c *Config) { c.History = 3 })
	s := n.stream("", "document_1", "document_2")
	begin := s.expect("joined document_1", "joined document_2")
	n.publish("1", 1)
	last := s.expect("document_1 1")
	s.cancel()
	n.publish("2", 2)
	n.publish("1", 3)
	n.publish("3", 4)
	n.stream(last, "document_1", "document_2").expect("document_2 2", "document_1 3", "joined document_1", "joined document_2")
	// Who has seen nothing yet goes on from when it joined.
	n.stream(begin, "document_1").expect("document_1 1", "document_1 3", "joined document_1")

	n.publish("1", 5, 6, 7) // one more than the history has room for after last
	s = n.stream(last, "document_1", "document_2")
	s.expect("reset document_1", "document_2 2", "joined document_1", "joined document_2")
	n.publish("1", 8)
	s.expect("document_1 8")
}

func TestSocketGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	s := n.connect("ada")
	joined := s.join("document_1")
	n.publish("1", 1)
	last := s.expect("document_1 1")
	_ = s.CloseNow()
	n.publish("1", 2)
	again := n.connect("ada")
	again.send(`{"join":"document_1","after":"` + last.ID + `"}`)
	again.expect("document_1 2")
	again.expect("joined document_1")
	again = n.connect("ada")
	again.send(`{"join":"document_1","after":"` + joined.ID + `"}`)
	again.expect("document_1 1")
	again.expect("document_1 2")
	again.expect("joined document_1")
}

func TestCopiesOfAnEventAreToldOnce(t *testing.T) {
	t.Parallel()
	h := newHistory("a", 10, 1<<20)
	if h.add("key", "g", []byte("{}"), time.Now()) == nil {
		t.Error("the first one is dropped")
	}
	if h.add("key", "g", []byte("{}"), time.Now()) != nil {
		t.Error("the second one is not dropped")
	}
}

// A position of another node is found by the event, and begins earlier by the overlap.
func TestPositionOfAnotherNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := newHistory("a", 10, 1<<20), newHistory("b", 10, 1<<20)
		b.add("x", "other", []byte("{}"), time.Now())
		both := func(key string) (id string) {
			b.add(key, "g", []byte("{}"), time.Now())
			return a.add(key, "g", []byte("{}"), time.Now()).id
		}
		both("early")
		time.Sleep(3 * time.Second)
		both("near")
		time.Sleep(time.Second)
		id := both("last")
		both("missed")
		seq, ok := b.find(id)
		entries, complete := b.after("g", seq)
		var keys []string
		for _, e := range entries {
			keys = append(keys, e.key)
		}
		if !ok || !complete || len(keys) != 3 || keys[0] != "near" || keys[2] != "missed" {
			t.Errorf("found %v %v: %q", ok, complete, keys)
		}
		if _, ok := newHistory("c", 10, 1<<20).find(id); ok {
			t.Error("a node that has just started claims to know the event")
		}
	})
}

// The bytes of all groups are bounded, and so are the groups: what is dropped is known to
// be lost, also of a group of which nothing is left.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	h := newHistory("a", 10, 20*entryOverhead)
	start := h.now("g0")
	var latest string
	for i := range 1000 {
		group := "g" + strconv.Itoa(i)
		latest = h.add(group, group, []byte("{}"), time.Now()).id
	}
	if h.bytes > h.maxBytes || len(h.tracks) > 20 || len(h.keys) != len(h.tracks) || h.all.Len() != len(h.tracks) {
		t.Errorf("%d bytes, %d groups, %d keys, %d entries", h.bytes, len(h.tracks), len(h.keys), h.all.Len())
	}
	seq, ok := h.find(start)
	if !ok {
		t.Fatal("the node does not know its own position")
	}
	if _, complete := h.after("g0", seq); complete {
		t.Error("what was dropped is not told")
	}
	if seq, ok = h.find(latest); !ok {
		t.Fatal("the latest position is lost")
	}
	if _, complete := h.after("g0", seq); !complete {
		t.Error("a group that has missed nothing is told so")
	}
	none := newHistory("a", -1, 1<<20)
	id := none.now("g")
	if none.add("k", "g", []byte("{}"), time.Now()) == nil {
		t.Error("without history, events are not sent")
	}
	seq, _ = none.find(id)
	if _, complete := none.after("g", seq); complete || none.bytes != 0 {
		t.Errorf("without history nothing can be resumed, and %d bytes are kept", none.bytes)
	}
}

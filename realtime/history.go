package realtime

import (
	"container/list"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// overlap is how much earlier a client that comes from another node begins: nodes see
// events of different publishers in different orders, so one that it lacks can be before
// the last one that it has.
const overlap = 2 * time.Second

// entryOverhead is what an entry of the history costs besides its message, in bytes.
const entryOverhead = 512

// entry is an event in one group.
type entry struct {
	seq   uint64 // counts on this node, over all groups
	key   string // the same on all nodes
	group string
	at    time.Time
	msg   *message
}

// history keeps the last events of groups. It is guarded by Hub.mu.
type history struct {
	node     string // random: what other nodes' numbers are told by
	perGroup int
	maxBytes int

	seq     uint64 // of the latest entry ever made
	bytes   int
	all     *list.List // of *entry, oldest first
	keys    map[string]*list.Element
	tracks  map[string]*track
	evicted uint64 // highest seq that was dropped of groups without a track
}

// track is the history of one group.
type track struct {
	entries []*list.Element // oldest first
	evicted uint64          // highest seq that was dropped
}

func newHistory(node string, perGroup, maxBytes int) *history {
	return &history{
		node: node, perGroup: max(perGroup, 0), maxBytes: maxBytes,
		all: list.New(), keys: map[string]*list.Element{}, tracks: map[string]*track{},
	}
}

// eventKey identifies an event in a group on every node.
func eventKey(source, id, group string) string {
	sum := sha256.Sum256([]byte(source + "\x00" + id + "\x00" + group))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// position writes an id with which a client comes back: node.seq.key, of letters, digits,
// - and _.
func position(node string, seq uint64, key string) string {
	return node + "." + strconv.FormatUint(seq, 10) + "." + key
}

// add makes the entry of an event, unless it is there already: then it returns nil.
func (h *history) add(key, group string, event []byte, now time.Time) *message {
	if _, ok := h.keys[key]; ok {
		return nil
	}
	h.seq++
	e := &entry{seq: h.seq, key: key, group: group, at: now}
	e.msg = eventMessage(position(h.node, e.seq, key), group, event)
	t := h.tracks[group]
	if t == nil {
		t = &track{evicted: h.evicted}
		h.tracks[group] = t
	}
	element := h.all.PushBack(e)
	h.keys[key] = element
	t.entries = append(t.entries, element)
	h.bytes += cost(e)
	for len(t.entries) > h.perGroup {
		h.drop(t.entries[0])
	}
	for h.bytes > h.maxBytes {
		h.drop(h.all.Front())
	}
	return e.msg
}

func cost(e *entry) int { return len(e.msg.data) + entryOverhead }

// drop forgets an entry, which is the oldest of its group.
func (h *history) drop(element *list.Element) {
	e := h.all.Remove(element).(*entry)
	h.bytes -= cost(e)
	delete(h.keys, e.key)
	t := h.tracks[e.group]
	t.entries[0] = nil
	t.entries = t.entries[1:]
	t.evicted = e.seq
	if len(t.entries) == 0 {
		delete(h.tracks, e.group)
		h.evicted = max(h.evicted, e.seq)
	}
}

// now is the position after the latest entry, for a client of a group.
func (h *history) now(group string) string {
	var key string
	if t := h.tracks[group]; t != nil {
		key = entryOf(t.entries[len(t.entries)-1]).key
	}
	return position(h.node, h.seq, key)
}

// find returns the number of the last entry that a client has, which came back with a
// position. false: it can't be told.
func (h *history) find(after string) (uint64, bool) {
	node, rest, _ := strings.Cut(after, ".")
	digits, key, _ := strings.Cut(rest, ".")
	if node == h.node {
		seq, err := strconv.ParseUint(digits, 10, 64)
		return seq, err == nil && seq <= h.seq
	}
	element, ok := h.keys[key]
	if !ok {
		return 0, false
	}
	since := entryOf(element).at.Add(-overlap)
	for before := element.Prev(); before != nil && entryOf(before).at.After(since); before = before.Prev() {
		element = before
	}
	return entryOf(element).seq - 1, true
}

// after returns the entries of a group later than seq, oldest first. false: some of them
// are lost.
func (h *history) after(group string, seq uint64) ([]*entry, bool) {
	t := h.tracks[group]
	if t == nil {
		return nil, h.evicted <= seq
	}
	if t.evicted > seq {
		return nil, false
	}
	var missed []*entry
	for _, element := range t.entries {
		if e := entryOf(element); e.seq > seq {
			missed = append(missed, e)
		}
	}
	return missed, true
}

func entryOf(element *list.Element) *entry {
	return element.Value.(*entry)
}

package eventstore

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// memory keeps events in the process.
type memory struct {
	cfg Config

	mu      sync.Mutex // guards what follows
	entries []tsql.Entry
	last    int64
	index   map[indexKey][]int64 // places, ascending; those of events that are gone are passed over
	saved   map[string]replayRow
}

type indexKey struct {
	kind
	value string
}

var (
	_ backend = (*memory)(nil)
	_ replays = (*memory)(nil)
)

func newMemory(cfg Config) *memory {
	return &memory{cfg: cfg, index: make(map[indexKey][]int64), saved: make(map[string]replayRow)}
}

func (m *memory) add(_ context.Context, batch []transports.Outgoing) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now().UTC().Truncate(time.Millisecond)
	for _, out := range batch {
		m.last++
		msg := out.Message.Copy()
		transports.SetTopic(msg, out.Topic)
		e := tsql.Entry{ID: m.last, Topic: out.Topic, Message: msg, Published: now}
		e.Message.Payload = slices.Clone(msg.Payload)
		m.entries = append(m.entries, e)
		for _, key := range keysOf(e) {
			m.index[key] = append(m.index[key], e.ID)
		}
	}
	m.prune(now)
	return nil
}

// prune forgets what is too old or too much. Called with mu held.
func (m *memory) prune(now time.Time) {
	n := max(len(m.entries)-m.cfg.MaxEvents, 0)
	for m.cfg.Retention > 0 && n < len(m.entries) && m.entries[n].Published.Before(now.Add(-m.cfg.Retention)) {
		n++
	}
	for _, e := range m.entries[:n] {
		for _, key := range keysOf(e) {
			if ids := m.index[key]; len(ids) > 1 {
				m.index[key] = ids[1:]
			} else {
				delete(m.index, key)
			}
		}
	}
	m.entries = slices.Delete(m.entries, 0, n)
}

func keysOf(e tsql.Entry) []indexKey {
	md := e.Message.Metadata
	var keys []indexKey
	for _, key := range [...]indexKey{{byID, e.Message.UUID}, {bySubject, md[keySubject]}, {byCorrelation, md[keyCorrelation]}, {byCausation, md[keyCausation]}} {
		if key.value != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

func (m *memory) read(_ context.Context, r tsql.Range) ([]tsql.Entry, int64, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries, scanned, more := m.collect(r, m.within(r))
	return entries, scanned, more, nil
}

// within returns the entries of a range, the newest first if it says so.
func (m *memory) within(r tsql.Range) []tsql.Entry {
	from := sort.Search(len(m.entries), func(i int) bool { return m.entries[i].ID > r.After })
	to := len(m.entries)
	if r.UpTo > 0 {
		to = sort.Search(len(m.entries), func(i int) bool { return m.entries[i].ID > r.UpTo })
	}
	part := slices.Clone(m.entries[from:max(from, to)])
	if r.Newest {
		slices.Reverse(part)
	}
	return part
}

func (*memory) collect(r tsql.Range, part []tsql.Entry) (entries []tsql.Entry, scanned int64, more bool) {
	for _, e := range part {
		if len(entries) == r.Limit {
			return entries, scanned, true
		}
		scanned = e.ID
		if len(r.Topics) > 0 && !slices.ContainsFunc(r.Topics, func(p string) bool { return transports.Match(p, e.Topic) }) {
			continue
		}
		e.Message = e.Message.Copy() // the caller may write to it
		e.Message.Payload = slices.Clone(e.Message.Payload)
		entries = append(entries, e)
	}
	return entries, scanned, false
}

func (m *memory) find(_ context.Context, k kind, value string, r tsql.Range) ([]tsql.Entry, int64, bool, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var part []tsql.Entry
	for _, id := range m.index[indexKey{k, value}] {
		if id > r.After && (r.UpTo == 0 || id <= r.UpTo) {
			if i := sort.Search(len(m.entries), func(i int) bool { return m.entries[i].ID >= id }); i < len(m.entries) && m.entries[i].ID == id {
				part = append(part, m.entries[i])
			}
		}
	}
	if r.Newest {
		slices.Reverse(part)
	}
	entries, scanned, more := m.collect(r, part)
	return entries, scanned, more, true, nil
}

func (m *memory) bounds(context.Context) (first, last int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.prune(time.Now())
	if len(m.entries) == 0 {
		return 0, 0, nil
	}
	return m.entries[0].ID, m.last, nil
}

func (m *memory) settled(context.Context) (int64, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last, m.last, nil
}

func (m *memory) place(_ context.Context, at time.Time) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := sort.Search(len(m.entries), func(i int) bool { return !m.entries[i].Published.Before(at) })
	if i == len(m.entries) {
		return m.last + 1, nil
	}
	return m.entries[i].ID, nil
}

func (m *memory) loadReplay(_ context.Context, id string) (replayRow, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.saved[id]
	return row, ok, nil
}

func (m *memory) createReplay(_ context.Context, row replayRow) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.saved[row.ID]; taken {
		return ErrReplayTaken
	}
	row.Created = time.Now().UTC()
	m.saved[row.ID] = row
	return nil
}

func (m *memory) listReplays(context.Context) ([]replayRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rows []replayRow
	for _, row := range m.saved {
		rows = append(rows, row)
	}
	return rows, nil
}

func (m *memory) moveReplay(_ context.Context, from, to replayRow) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now, ok := m.saved[from.ID]; !ok || now.Position != from.Position || now.Done {
		return fmt.Errorf("%w: %s", ErrReplayTaken, from.ID)
	}
	m.saved[from.ID] = to
	return nil
}

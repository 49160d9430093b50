package memory

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/internal/poisoned"
	"github.com/gotidings/tidings/transports"
)

// Poison stores a copy of msg in the poison queue of a subscription. The error
// is [transports.ErrPoisonQueueFull] when it holds [Config.PoisonSize] already.
func (t *Transport) Poison(ctx context.Context, subscription string, msg *message.Message) error {
	return t.withQueue(ctx, subscription, func(q *queue) error {
		if limit := t.broker.cfg.PoisonSize; len(q.poisoned) >= limit {
			return fmt.Errorf("%w: %q has %d messages", transports.ErrPoisonQueueFull, subscription, limit)
		}
		t.broker.lastPoisoned++
		q.poisoned = append(q.poisoned, poisonedRecord{newRecord(transports.Topic(msg), clone(msg)), t.broker.lastPoisoned})
		return nil
	})
}

// poisonedRecord is a record in a poison queue.
type poisonedRecord struct {
	*record
	id uint64 // unique at the broker; rises
}

// Poisoned lists a poison queue as it was when the iteration began.
func (t *Transport) Poisoned(ctx context.Context, subscription string, page transports.PoisonPage) iter.Seq2[transports.Poisoned, error] {
	return func(yield func(transports.Poisoned, error) bool) {
		var records []poisonedRecord
		after, err := parseHandle(page.After)
		if err == nil {
			err = t.withQueue(ctx, subscription, func(q *queue) error {
				records = slices.Clone(q.poisoned)
				return nil
			})
		}
		if err != nil {
			yield(transports.Poisoned{}, err)
			return
		}
		events := eventsOf(records)
		if len(after) > 0 {
			events = slices.DeleteFunc(events, func(copies []poisonedRecord) bool { return copies[0].id <= after[0] })
		}
		if page.Limit > 0 {
			events = events[:min(page.Limit, len(events))]
		}
		for _, copies := range events {
			p := transports.ReadPoisoned(copies[0].message())
			p.Handle = handleOf(copies)
			if !yield(p, nil) {
				return
			}
		}
	}
}

// eventsOf joins the copies of each event, in the order of the first copies.
func eventsOf(records []poisonedRecord) [][]poisonedRecord {
	events := make([][]poisonedRecord, 0, len(records))
	index := make(map[poisoned.Digest]int, len(records)) // in events
	for _, rec := range records {
		if rec.uuid == "" {
			events = append(events, []poisonedRecord{rec})
			continue
		}
		digest := poisoned.Of(&message.Message{UUID: rec.uuid, Metadata: rec.metadata, Payload: rec.payload})
		i, seen := index[digest]
		if !seen {
			i, index[digest] = len(events), len(events)
			events = append(events, nil)
		}
		events[i] = append(events[i], rec)
	}
	return events
}

// handleOf writes the ids of an event's copies.
func handleOf(copies []poisonedRecord) transports.PoisonHandle {
	ids := make([]string, len(copies))
	for i, rec := range copies {
		ids[i] = strconv.FormatUint(rec.id, 10)
	}
	return transports.PoisonHandle(strings.Join(ids, "."))
}

// parseHandle is the reverse of handleOf. It returns no ids for "".
func parseHandle(handle transports.PoisonHandle) (ids []uint64, err error) {
	if handle == "" {
		return nil, nil
	}
	for s := range strings.SplitSeq(string(handle), ".") {
		id, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("memory: the handle %.40q: %w", handle, transports.ErrNoPoisoned)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// RequeuePoisoned moves events, with all their copies, back to the end of the
// subscription's queue, over its bound if need be.
func (t *Transport) RequeuePoisoned(ctx context.Context, subscription string, handles ...transports.PoisonHandle) (int, error) {
	return t.takePoisoned(ctx, subscription, handles, func(q *queue, rec poisonedRecord) {
		msg := rec.message()
		transports.StripHeaders(msg.Metadata)
		q.add(newRecord(rec.topic, msg), 0)
	})
}

// DiscardPoisoned deletes events, with all their copies.
func (t *Transport) DiscardPoisoned(ctx context.Context, subscription string, handles ...transports.PoisonHandle) (int, error) {
	return t.takePoisoned(ctx, subscription, handles, func(*queue, poisonedRecord) {})
}

// takePoisoned takes the events of the handles out of the poison queue, gives every copy
// to fn, and counts events.
func (t *Transport) takePoisoned(ctx context.Context, subscription string, handles []transports.PoisonHandle, fn func(*queue, poisonedRecord)) (int, error) {
	wanted := make(map[uint64]transports.PoisonHandle)
	for _, handle := range handles {
		ids, err := parseHandle(handle)
		if len(ids) == 0 && err == nil {
			err = fmt.Errorf("memory: an empty handle: %w", transports.ErrNoPoisoned)
		}
		if err != nil {
			return 0, err
		}
		for _, id := range ids {
			wanted[id] = handle
		}
	}
	events := make(map[transports.PoisonHandle]bool)
	err := t.withQueue(ctx, subscription, func(q *queue) error {
		q.poisoned = slices.DeleteFunc(q.poisoned, func(rec poisonedRecord) bool {
			handle, ok := wanted[rec.id]
			if ok {
				events[handle] = true
				fn(q, rec)
			}
			return ok
		})
		return nil
	})
	return len(events), err
}

package memory

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/transports"
)

// Poison stores a copy of msg in the poison queue of a subscription. The error
// is [transports.ErrPoisonQueueFull] when it holds [Config.PoisonSize] already.
func (t *Transport) Poison(ctx context.Context, subscription string, msg *message.Message) error {
	return t.withQueue(ctx, subscription, func(q *queue) error {
		if limit := t.broker.cfg.PoisonSize; len(q.poisoned) >= limit {
			return fmt.Errorf("%w: %q has %d messages", transports.ErrPoisonQueueFull, subscription, limit)
		}
		q.poisoned = append(q.poisoned, newRecord(transports.Topic(msg), clone(msg)))
		return nil
	})
}

// Poisoned lists a poison queue as it was when the iteration began.
func (t *Transport) Poisoned(ctx context.Context, subscription string) iter.Seq2[transports.Poisoned, error] {
	return func(yield func(transports.Poisoned, error) bool) {
		var records []*record
		err := t.withQueue(ctx, subscription, func(q *queue) error {
			records = slices.Clone(q.poisoned)
			return nil
		})
		if err != nil {
			yield(transports.Poisoned{}, err)
			return
		}
		seen := make(map[transports.EventKey]bool, len(records))
		for _, rec := range records {
			msg := rec.message()
			key := transports.KeyOf(msg)
			if seen[key] && key.ID != "" { // without an id they may be different events
				continue
			}
			seen[key] = true
			if !yield(transports.ReadPoisoned(msg), nil) {
				return
			}
		}
	}
}

// RequeuePoisoned moves events, with all their copies, back to the end of the
// subscription's queue, over its bound if need be.
func (t *Transport) RequeuePoisoned(ctx context.Context, subscription string, keys ...transports.EventKey) (int, error) {
	return t.takePoisoned(ctx, subscription, keys, func(q *queue, rec *record) {
		msg := rec.message()
		transports.StripHeaders(msg.Metadata)
		q.add(newRecord(rec.topic, msg), 0)
	})
}

// DiscardPoisoned deletes events, with all their copies.
func (t *Transport) DiscardPoisoned(ctx context.Context, subscription string, keys ...transports.EventKey) (int, error) {
	return t.takePoisoned(ctx, subscription, keys, func(*queue, *record) {})
}

// takePoisoned takes the named events out of the poison queue, gives every copy
// to fn, and counts events.
func (t *Transport) takePoisoned(ctx context.Context, subscription string, keys []transports.EventKey, fn func(*queue, *record)) (int, error) {
	wanted := make(map[transports.EventKey]bool, len(keys))
	for _, key := range keys {
		wanted[key] = false
	}
	events := 0
	err := t.withQueue(ctx, subscription, func(q *queue) error {
		q.poisoned = slices.DeleteFunc(q.poisoned, func(rec *record) bool {
			key := transports.KeyOf(&message.Message{UUID: rec.uuid, Metadata: rec.metadata})
			taken, ok := wanted[key]
			if !ok {
				return false
			}
			if !taken || key.ID == "" {
				wanted[key] = true
				events++
			}
			fn(q, rec)
			return true
		})
		return nil
	})
	return events, err
}

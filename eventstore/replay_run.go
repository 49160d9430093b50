package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/middleware"
	"github.com/gotidings/tidings/transports"
	tsql "github.com/gotidings/tidings/transports/sql"
)

// run sends what is left of a replay.
func (s *Store) run(ctx context.Context, target transports.Transport, row replayRow, c Control) (Progress, error) {
	batch := c.Batch
	if batch == 0 {
		batch = defaultBatch
		if c.Rate > 0 {
			batch = int(min(max(c.Rate/10, 1), defaultBatch))
		}
	}
	began, sent := time.Now(), row.Sent
	for !row.Done {
		to, messages, err := s.nextBatch(ctx, row, batch)
		if err != nil {
			return row.progress(), err
		}
		if to.Position == row.Position && !to.Done { // a transaction is open that may still commit something
			if err := wait(ctx, settlePoll); err != nil {
				return row.progress(), err
			}
			continue
		}
		if err := s.step(ctx, target, row, to, messages); err != nil {
			return row.progress(), fmt.Errorf("eventstore: replay %s: %w", row.ID, err)
		}
		if t, ok := target.(*tsql.Transport); ok {
			t.Wake()
		}
		row = to
		if c.OnProgress != nil {
			c.OnProgress(row.progress())
		}
		if c.Rate > 0 && !row.Done {
			due := began.Add(time.Duration(float64(row.Sent-sent) / c.Rate * float64(time.Second)))
			if err := wait(ctx, time.Until(due)); err != nil {
				return row.progress(), err
			}
		}
	}
	return row.progress(), nil
}

// settlePoll is how often to look whether an open transaction has ended.
const settlePoll = 20 * time.Millisecond

// nextBatch returns the next events of a replay and the row after them. It goes no further
// than to where nothing can appear any more.
func (s *Store) nextBatch(ctx context.Context, row replayRow, batch int) (to replayRow, messages []*message.Message, err error) {
	settled, _, err := s.events.settled(ctx)
	if err != nil {
		return row, nil, err
	}
	to = row
	end := min(row.Until, settled)
	for to.Position < end && len(messages) < batch {
		entries, scanned, more, err := s.next(ctx, row.Query, tsql.Range{Topics: row.Query.Types, After: to.Position, UpTo: end, Limit: batch})
		if err != nil {
			return row, nil, err
		}
		full := false
		for _, e := range entries {
			if full = len(messages) == batch; full {
				break
			}
			to.Position = e.ID
			if row.Query.takes(e) {
				messages = append(messages, marked(e, row.ID))
			}
		}
		switch {
		case full:
		case more:
			to.Position = max(to.Position, scanned)
		default:
			to.Position = end
		}
	}
	to.Sent += int64(len(messages))
	to.Done = to.Position >= row.Until
	return to, messages, nil
}

// marked is the message that is sent.
func marked(e tsql.Entry, replay string) *message.Message {
	msg := e.Message
	transports.StripHeaders(msg.Metadata)
	msg.Metadata[middleware.ReplayKey] = replay
	return msg
}

// step sends a batch and moves the position on: in one transaction where the deliveries are
// in the store's database. To another broker, the position follows what is stored there, and
// no transaction is open while that is awaited.
func (s *Store) step(ctx context.Context, target transports.Transport, from, to replayRow, messages []*message.Message) error {
	if t, ok := target.(*tsql.Transport); ok && s.log != nil && t.Log().DB() == s.log.DB() {
		return s.log.advanceReplay(ctx, from, to, func(ctx context.Context, tx tsql.Tx) error {
			if len(messages) == 0 {
				return nil
			}
			return t.RequeueTx(ctx, tx, from.Subscription, messages...)
		})
	}
	if err := send(ctx, target, from.Subscription, messages); err != nil {
		return err
	}
	return s.replays.moveReplay(ctx, from, to)
}

// send stores messages for the subscription, waiting once where the transport can.
func send(ctx context.Context, target transports.Transport, subscription string, messages []*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	if t, ok := target.(transports.BatchRequeuer); ok {
		return t.RequeueBatch(ctx, subscription, messages...)
	}
	requeuer := target.(transports.Requeuer) //nolint:forcetypeassert // validate has looked
	for _, msg := range messages {
		if err := requeuer.Requeue(ctx, subscription, msg, 0); err != nil {
			return err
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ReplayID returns the id of the replay that a handler's event is of, and false when it is
// the event itself. A handler that sends e-mails may want to look.
func ReplayID(ctx context.Context) (string, bool) {
	md, ok := events.MetadataFrom(ctx)
	if !ok {
		return "", false
	}
	id, ok := md.Extensions["replayid"]
	return id, ok
}

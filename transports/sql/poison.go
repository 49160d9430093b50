package sql

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/internal/poisoned"
	"github.com/gotidings/tidings/transports"
)

// Poison stores a copy of msg in the poison queue of a subscription.
func (t *Transport) Poison(ctx context.Context, subscription string, msg *message.Message) error {
	return t.do(ctx, func(ctx context.Context) error {
		return t.store.exception(ctx, subscription, msg, statePoisoned, 0)
	})
}

// Poisoned lists a poison queue, some rows at a time.
func (t *Transport) Poisoned(ctx context.Context, subscription string, page transports.PoisonPage) iter.Seq2[transports.Poisoned, error] {
	return func(yield func(transports.Poisoned, error) bool) {
		stopped := false
		listed := 0
		err := t.do(ctx, func(ctx context.Context) error {
			var after int64
			if page.After != "" {
				ids, err := parseHandle(page.After)
				if err != nil {
					return err
				}
				after = ids[0]
			}
			id, err := t.store.groupID(ctx, subscription)
			if err != nil {
				return err
			}
			for {
				rows := poisonRows
				if page.Limit > 0 {
					rows = min(rows, page.Limit-listed)
				}
				events, last, err := t.store.poisonedAfter(ctx, id, after, rows)
				if err != nil || last == 0 {
					return err
				}
				after = last
				for _, p := range events {
					if !yield(p, nil) {
						stopped = true
						return nil
					}
					if listed++; listed == page.Limit {
						return nil
					}
				}
			}
		})
		if err != nil && !stopped {
			yield(transports.Poisoned{}, err)
		}
	}
}

// poisonRows is how many rows of a poison queue are listed, or taken, by a statement. What
// is read is also bounded by loadBytes.
const poisonRows = 500

// poisonedRow is a row of a poison queue.
type poisonedRow struct {
	record
	hash int64
	msg  *message.Message
}

// poisonedAfter returns the events of the next rows behind a row, and the last of these
// rows, 0 when there is none. An event is at the place of its first copy.
func (s *store) poisonedAfter(ctx context.Context, subscription, after int64, limit int) (events []transports.Poisoned, last int64, err error) {
	var ids []int64
	size := 0
	err = s.query(ctx, s.db, func(rows *sql.Rows) error {
		var id, bytes int64
		if err := rows.Scan(&id, &bytes); err != nil {
			return err
		}
		if size < loadBytes {
			ids = append(ids, id)
		}
		size += int(bytes)
		return nil
	}, `select id, octet_length(payload) + octet_length(metadata) from {deliveries} where subscription_id = ? and state = 1 and due_ms = 0 and id > ? order by id limit ?`,
		subscription, after, limit)
	if err != nil || len(ids) == 0 {
		return nil, 0, err
	}
	rows, err := s.loadPoisoned(ctx, ids)
	if err != nil {
		return nil, 0, err
	}
	copies, err := s.copies(ctx, subscription, rows)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range rows {
		same := copies[r.id]
		if same == nil {
			same = []int64{r.id}
		}
		if same[0] < r.id {
			continue // listed with that one
		}
		p := transports.ReadPoisoned(r.msg)
		p.Handle = handleOf(same)
		events = append(events, p)
	}
	return events, ids[len(ids)-1], nil
}

// loadPoisoned reads rows that are poisoned still, in order.
func (s *store) loadPoisoned(ctx context.Context, ids []int64) ([]poisonedRow, error) {
	var loaded []poisonedRow
	err := s.query(ctx, s.db, func(rows *sql.Rows) error {
		var r poisonedRow
		if err := rows.Scan(&r.id, &r.topic, &r.eventID, &r.hash, &r.metadata, &r.payload); err != nil {
			return err
		}
		md, err := parseMetadata(r.metadata)
		if err != nil {
			return err
		}
		r.msg = message.NewMessage(r.eventID, r.payload)
		r.msg.Metadata = md
		transports.SetTopic(r.msg, r.topic)
		loaded = append(loaded, r)
		return nil
	}, `select id, topic, event_id, event_hash, metadata, payload from {deliveries} where id in (`+idList(ids)+`) and state = 1 order by id`)
	return loaded, err
}

// copies finds the rows of the same events. It returns, by the id of each of rows that has
// copies, the ids of all of them, itself included, in order.
func (s *store) copies(ctx context.Context, subscription int64, rows []poisonedRow) (map[int64][]int64, error) {
	loaded := make(map[int64]poisonedRow, len(rows))
	var hashes []int64
	for _, r := range rows {
		loaded[r.id] = r
		if r.eventID != "" { // without an id, each is an event of its own
			hashes = append(hashes, r.hash)
		}
	}
	if len(hashes) == 0 {
		return nil, nil
	}
	byHash := make(map[int64][]int64)
	err := s.query(ctx, s.db, func(rows *sql.Rows) error {
		var id, hash int64
		err := rows.Scan(&id, &hash)
		byHash[hash] = append(byHash[hash], id)
		return err
	}, `select id, event_hash from {deliveries} where subscription_id = ? and event_hash in (`+idList(hashes)+`) and state = 1 order by id`, subscription)
	if err != nil {
		return nil, err
	}
	found := make(map[int64][]int64)
	for _, ids := range byHash {
		if len(ids) < 2 {
			continue
		}
		byDigest := make(map[poisoned.Digest][]int64)
		for _, id := range ids { // few, and one at a time: each may be as large as a message may be
			r, ok := loaded[id]
			if !ok {
				more, err := s.loadPoisoned(ctx, []int64{id})
				if err != nil {
					return nil, err
				}
				if len(more) == 0 { // taken meanwhile
					continue
				}
				r = more[0]
			}
			digest := poisoned.Of(r.msg)
			byDigest[digest] = append(byDigest[digest], id)
		}
		for _, same := range byDigest {
			for _, id := range same {
				found[id] = same
			}
		}
	}
	return found, nil
}

// handleOf writes the ids of an event's rows. No other row ever has them.
func handleOf(ids []int64) transports.PoisonHandle {
	return transports.PoisonHandle(strings.ReplaceAll(idList(ids), ",", "."))
}

// parseHandle is the reverse of handleOf.
func parseHandle(handle transports.PoisonHandle) (ids []int64, err error) {
	for s := range strings.SplitSeq(string(handle), ".") {
		id, err := strconv.ParseInt(s, 10, 64)
		if err != nil || id <= 0 {
			return nil, fmt.Errorf("the handle %.40q: %w", handle, transports.ErrNoPoisoned)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// RequeuePoisoned moves events, with all their copies, back to their subscription.
func (t *Transport) RequeuePoisoned(ctx context.Context, subscription string, handles ...transports.PoisonHandle) (n int, err error) {
	err = t.do(ctx, func(ctx context.Context) error {
		n, err = t.store.takePoisoned(ctx, subscription, handles, t.store.requeuePoisoned)
		return err
	})
	t.Wake()
	return n, err
}

// DiscardPoisoned deletes events, with all their copies.
func (t *Transport) DiscardPoisoned(ctx context.Context, subscription string, handles ...transports.PoisonHandle) (n int, err error) {
	err = t.do(ctx, func(ctx context.Context) error {
		n, err = t.store.takePoisoned(ctx, subscription, handles, t.store.discardPoisoned)
		return err
	})
	return n, err
}

// takePoisoned gives the rows of handles that are in a poison queue to fn, some in a
// transaction, and returns how many events they were.
func (s *store) takePoisoned(ctx context.Context, subscription string, handles []transports.PoisonHandle, fn func(context.Context, Tx, []poisonedRow) error) (int, error) {
	wanted := make(map[int64]transports.PoisonHandle, len(handles))
	for _, handle := range handles {
		ids, err := parseHandle(handle)
		if err != nil {
			return 0, err
		}
		for _, id := range ids {
			wanted[id] = handle
		}
	}
	group, err := s.groupID(ctx, subscription)
	if err != nil {
		return 0, err
	}
	ids := make([]int64, 0, len(wanted))
	for id := range wanted {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	taken := make(map[transports.PoisonHandle]bool, len(handles))
	for part := range slices.Chunk(ids, poisonRows) {
		var found []poisonedRow
		err := s.inTx(ctx, func(tx Tx) error {
			found = nil
			if err := s.dialect.writeFirst(ctx, s, tx); err != nil {
				return err
			}
			err := s.query(ctx, tx, func(rows *sql.Rows) error {
				var r poisonedRow
				err := rows.Scan(&r.id, &r.metadata)
				found = append(found, r)
				return err
			}, `select id, metadata from {deliveries} where id in (`+idList(part)+`) and subscription_id = ? and state = 1 order by id {lock}`, group)
			if err != nil || len(found) == 0 {
				return err
			}
			return fn(ctx, tx, found)
		})
		if err != nil {
			return len(taken), err
		}
		for _, r := range found {
			taken[wanted[r.id]] = true
		}
	}
	return len(taken), nil
}

// requeuePoisoned makes poisoned rows due, for a fresh start.
func (s *store) requeuePoisoned(ctx context.Context, tx Tx, rows []poisonedRow) error {
	for _, r := range rows {
		md, err := parseMetadata(r.metadata)
		if err != nil {
			return err
		}
		transports.StripHeaders(md)
		if _, err := s.exec(ctx, tx, `update {deliveries} set state = 0, due_ms = {now}, owner = '', metadata = ? where id = ?`, formatMetadata(md), r.id); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) discardPoisoned(ctx context.Context, tx Tx, rows []poisonedRow) error {
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.id
	}
	_, err := s.exec(ctx, tx, `delete from {deliveries} where id in (`+idList(ids)+`)`)
	return err
}

package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/gotidings/tidings/internal/dberr"
	"github.com/gotidings/tidings/internal/intx"
	"github.com/gotidings/tidings/transports"
)

// sourceKey is the metadata key of the CloudEvents source, see package events.
const sourceKey = "ce_source"

// Publish commits messages to the log, in order, in one statement. With the context of an
// inbox's handler, or of outbox.InTx, on the same pool or SQLite file it writes them in that
// transaction, which commits them. While the database
// can't be reached it tries again, until the context of the first message ends; when
// the connection is lost in the middle, a message can be there twice, with one id.
func (t *Transport) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	batch := make([]transports.Outgoing, len(messages))
	for i, msg := range messages {
		batch[i] = transports.Outgoing{Topic: topic, Message: msg}
	}
	return t.PublishBatch(messages[0].Context(), batch)
}

// PublishBatch is [Transport.Publish] for messages of several topics, and with delays:
// a delayed message is kept aside and joins the log when it is due. A message that can't
// be published, because it is too large for example, does not hold up the others; what is
// left is committed, or fails, as a whole.
func (t *Transport) PublishBatch(ctx context.Context, batch []transports.Outgoing) error {
	if len(batch) == 0 {
		return nil
	}
	p := t.store.parcel(batch)
	if len(p.indexes) > 0 {
		if err := t.send(ctx, p); err != nil {
			p.fail(err)
		}
	}
	return p.err(len(batch))
}

// send commits a parcel, or writes it in the transaction that a handler runs in: a second
// connection could wait for the first one for ever, and SQLite has one writer.
func (t *Transport) send(ctx context.Context, p *parcel) error {
	if tx := intx.Tx(ctx, t.store.db, t.store.file); tx != nil {
		err := t.join(ctx, tx, p)
		if err == nil {
			intx.AfterCommit(ctx, tx, t, t.Wake)
		}
		return err
	}
	ctx, done := t.operation(ctx)
	defer done()
	const minDelay, maxDelay = 20 * time.Millisecond, time.Second
	for delay := minDelay; ; delay = min(2*delay, maxDelay) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := t.checkIDs(ctx); err != nil {
			return err
		}
		err := t.store.writeParcel(ctx, p)
		if err == nil {
			t.Wake()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !dberr.Away(err) {
			return err
		}
		t.store.log.WarnContext(ctx, "publish waits for the database", "error", err)
		if !wait(ctx, delay) {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// PublishTx writes messages in the caller's transaction: they are delivered if and only
// if it commits. It does not wait, and tries nothing again. Call [Transport.Wake] after
// the commit, or they are found a PollInterval later. Nothing has been written of a batch
// that it returns an error for, other than to the transaction. The error is [ErrNoTransaction]
// or [ErrXA] when tx can't be used.
func (t *Transport) PublishTx(ctx context.Context, tx Tx, batch ...transports.Outgoing) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	if err := checkTx(tx); err != nil {
		return err
	}
	p := t.store.parcel(batch)
	if err := p.err(len(batch)); err != nil {
		return err
	}
	if len(batch) == 0 {
		return nil
	}
	return t.join(ctx, tx, p)
}

// join writes a parcel in a transaction of the service.
func (t *Transport) join(ctx context.Context, tx Tx, p *parcel) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	if err := t.ids.knownFault(); err != nil {
		return err
	}
	if err := t.store.dialect.checkTx(ctx, tx); err != nil {
		return err
	}
	return t.store.insertParcel(ctx, tx, p)
}

// parcel is a batch that is ready to be written.
type parcel struct {
	rows     []row // for the log
	delayed  []delayedRow
	indexes  []int // of all of them in the batch
	failures []transports.PublishFailure
}

type delayedRow struct {
	row
	delay time.Duration
}

func (s *store) parcel(batch []transports.Outgoing) *parcel {
	p := &parcel{rows: make([]row, 0, len(batch)), indexes: make([]int, 0, len(batch))}
	for i, out := range batch {
		r, err := s.row(out.Topic, transports.ForPublish(out.Message))
		if err != nil {
			p.failures = append(p.failures, transports.PublishFailure{Index: i, Err: err})
			continue
		}
		p.indexes = append(p.indexes, i)
		if out.Delay > 0 {
			p.delayed = append(p.delayed, delayedRow{r, out.Delay})
		} else {
			p.rows = append(p.rows, r)
		}
	}
	return p
}

// row checks a message and makes its row.
func (s *store) row(topic string, msg *message.Message) (row, error) {
	if err := transports.ValidateTopic(topic); err != nil {
		return row{}, err
	}
	if len(topic) > maxNameBytes {
		return row{}, fmt.Errorf("topic of %d bytes; it takes at most %d", len(topic), maxNameBytes)
	}
	if n := len(msg.Payload); n > s.cfg.MaxMessageBytes {
		return row{}, transports.TooLarge(n, s.cfg.MaxMessageBytes)
	}
	r, err := rowOf(topic, msg)
	if n := r.size(); err == nil && s.maxRow > 0 && n > s.maxRow {
		return row{}, fmt.Errorf("%w: %d bytes with the metadata, limit %d", transports.ErrTooLarge, n, s.maxRow)
	}
	return r, err
}

// rowOf makes the row of a message that was published once, and may have no topic any more.
func rowOf(topic string, msg *message.Message) (row, error) {
	if !utf8.ValidString(msg.UUID) || strings.ContainsRune(msg.UUID, 0) {
		return row{}, fmt.Errorf("message id %q is not a text: it has a NUL or is not valid UTF-8", msg.UUID)
	}
	payload := []byte(msg.Payload)
	if payload == nil {
		payload = []byte{}
	}
	return row{
		topic: topic, eventID: msg.UUID, source: clean(msg.Metadata[sourceKey]), key: clean(msg.Metadata[keyKey]),
		metadata: formatMetadata(msg.Metadata), payload: payload,
	}, nil
}

// clean makes a text for a column of what is in the metadata as well, as it is.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// fail marks what was to be written as failed.
func (p *parcel) fail(err error) {
	failures := make([]transports.PublishFailure, 0, len(p.failures)+len(p.indexes))
	rest := p.failures
	for _, i := range p.indexes {
		for len(rest) > 0 && rest[0].Index < i {
			failures, rest = append(failures, rest[0]), rest[1:]
		}
		failures = append(failures, transports.PublishFailure{Index: i, Err: err})
	}
	p.failures = slices.Concat(failures, rest)
}

func (p *parcel) err(n int) error { return transports.BatchError(n, p.failures) }

// writeParcel commits a parcel.
func (s *store) writeParcel(ctx context.Context, p *parcel) error {
	if s.dialect.oneStatement(s, p) {
		return s.dialect.insert(ctx, s, s.db, p.rows)
	}
	return s.tryTx(ctx, func(tx Tx) error { return s.insertParcel(ctx, tx, p) })
}

func (s *store) insertParcel(ctx context.Context, q Tx, p *parcel) error {
	if len(p.rows) > 0 {
		if err := s.dialect.insert(ctx, s, q, p.rows); err != nil {
			return err
		}
	}
	return s.insertDelayed(ctx, q, p.delayed)
}

// insertDelayed writes delayed messages, as many with a statement as parameters allow.
func (s *store) insertDelayed(ctx context.Context, q Tx, delayed []delayedRow) error {
	rows := make([]row, len(delayed))
	for i, r := range delayed {
		rows[i] = r.row
	}
	for len(rows) > 0 {
		n := s.insertPart(rows)
		part := delayed[:n]
		rows, delayed = rows[n:], delayed[n:]
		const columns = 7
		args := make([]any, 0, columns*len(part))
		for _, r := range part {
			args = append(args, millis(r.delay), r.topic, r.eventID, r.source, r.key, r.metadata, r.payload)
		}
		values := slices.Repeat([]string{"({now} + ?, ?, ?, ?, ?, ?, ?)"}, len(part))
		_, err := s.exec(ctx, q, `insert into {scheduled} (due_ms, topic, event_id, source, partition_key, metadata, payload) values `+strings.Join(values, ", "), args...)
		if err != nil {
			return err
		}
	}
	return nil
}

// publishDue moves delayed messages that are due to the log, and reports whether there
// may be more.
func (s *store) publishDue(ctx context.Context) (more bool, err error) {
	const most = 100
	err = s.inTx(ctx, func(tx Tx) error {
		if err := s.dialect.writeFirst(ctx, s, tx); err != nil {
			return err
		}
		var ids []int64
		var rows []row
		err := s.query(ctx, tx, func(r *sql.Rows) error {
			var id int64
			var out row
			err := r.Scan(&id, &out.topic, &out.eventID, &out.source, &out.key, &out.metadata, &out.payload)
			ids, rows = append(ids, id), append(rows, out)
			return err
		}, `
select id, topic, event_id, source, partition_key, metadata, payload from {scheduled} where due_ms <= {now} order by due_ms, id limit ? {skip locked}`, most)
		if err != nil || len(ids) == 0 {
			return err
		}
		more = len(ids) == most
		for i := range rows {
			if rows[i].payload == nil {
				rows[i].payload = []byte{}
			}
		}
		if err := s.dialect.insert(ctx, s, tx, rows); err != nil {
			return err
		}
		_, err = s.exec(ctx, tx, `delete from {scheduled} where id in (`+idList(ids)+`)`)
		return err
	})
	return more, err
}

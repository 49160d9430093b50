package eventstore

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"hash"

	tsql "github.com/gotidings/tidings/transports/sql"
)

// A seal is a row of the table seals: for a batch of events the place, time and digest of
// each, and a digest of all that and of the seal before.
//
//	entries         for each event: place (8 bytes), time (8 bytes), digest (32 bytes)
//	entries_digest  of entries, so that the chain can be followed when those are dropped
//	digest          of the digest before, n, the columns of the range, and entries_digest
//
// The sealer follows the log with its own position, after the events are committed, so that
// publishers need not take turns. An event that was committed late is in a later seal than
// its place would say.
type seal struct {
	n, first, last, newest, events int64
	entries, entriesDigest, digest []byte
}

type sealEntry struct {
	id, published int64
	digest        [sha256.Size]byte
}

const sealEntrySize = 8 + 8 + sha256.Size

// sealBatch is how many events a seal has at most.
const sealBatch = 1000

func (l *sqlLog) newHash() hash.Hash {
	if len(l.cfg.SealKey) > 0 {
		return hmac.New(sha256.New, l.cfg.SealKey)
	}
	return sha256.New()
}

// digestOf is the digest of an event's row.
func (l *sqlLog) digestOf(e *tsql.Entry) (digest [sha256.Size]byte, err error) {
	b, err := e.AppendBinary([]byte("event"))
	if err != nil {
		return digest, err
	}
	h := l.newHash()
	_, _ = h.Write(b) // never fails
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// digestAfter is the digest of a seal that follows one with this digest.
func (l *sqlLog) digestAfter(previous []byte, s *seal) []byte {
	b := append([]byte("seal"), previous...)
	for _, n := range [...]int64{s.n, s.first, s.last, s.newest, s.events} {
		b = binary.BigEndian.AppendUint64(b, uint64(n)) //nolint:gosec // any 64 bits will do
	}
	h := l.newHash()
	_, _ = h.Write(append(b, s.entriesDigest...)) // never fails
	return h.Sum(nil)
}

func (l *sqlLog) entriesDigest(entries []byte) []byte {
	h := l.newHash()
	_, _ = h.Write([]byte("entries")) // never fails
	_, _ = h.Write(entries)
	return h.Sum(nil)
}

func (s *seal) list() ([]sealEntry, error) {
	if len(s.entries)%sealEntrySize != 0 {
		return nil, fmt.Errorf("%d bytes of entries", len(s.entries))
	}
	list := make([]sealEntry, 0, len(s.entries)/sealEntrySize)
	for b := s.entries; len(b) > 0; b = b[sealEntrySize:] {
		list = append(list, sealEntry{
			id: int64(binary.BigEndian.Uint64(b)), published: int64(binary.BigEndian.Uint64(b[8:])), //nolint:gosec // as they were written
			digest: [sha256.Size]byte(b[16:sealEntrySize]),
		})
	}
	return list, nil
}

// catchUpSeals seals what is new in the log. The transaction that moves the follower on has
// its row locked, so seals are made one after the other.
func (l *sqlLog) catchUpSeals(ctx context.Context) error {
	if l.sealer == nil {
		return nil
	}
	_, err := l.sealer.CatchUp(ctx, sealBatch, func(ctx context.Context, tx tsql.Tx, entries []tsql.Entry) error {
		if len(entries) == 0 {
			return nil
		}
		var last seal
		err := l.query(ctx, tx, func(rows *sql.Rows) error { return rows.Scan(&last.n, &last.digest) }, `select n, digest from {seals} order by n desc limit 1`)
		if err != nil {
			return err
		}
		s := seal{n: last.n + 1, first: entries[0].ID, last: entries[len(entries)-1].ID, events: int64(len(entries))}
		for i := range entries {
			e := &entries[i]
			digest, err := l.digestOf(e)
			if err != nil {
				return err
			}
			published := e.Published.UnixMilli()
			s.newest = max(s.newest, published)
			s.entries = binary.BigEndian.AppendUint64(s.entries, uint64(e.ID))      //nolint:gosec // any 64 bits will do
			s.entries = binary.BigEndian.AppendUint64(s.entries, uint64(published)) //nolint:gosec // the same
			s.entries = append(s.entries, digest[:]...)
		}
		s.entriesDigest = l.entriesDigest(s.entries)
		s.digest = l.digestAfter(last.digest, &s)
		_, err = tx.ExecContext(ctx, l.Write(`insert into {seals} (n, first_id, last_id, newest_ms, events, entries, entries_digest, digest) values (?, ?, ?, ?, ?, ?, ?, ?)`),
			s.n, s.first, s.last, s.newest, s.events, s.entries, s.entriesDigest, s.digest)
		return err
	})
	return err
}

// seals returns the next seals after n.
func (l *sqlLog) seals(ctx context.Context, after int64, limit int) ([]seal, error) {
	var seals []seal
	err := l.query(ctx, l.DB(), func(rows *sql.Rows) error {
		var s seal
		err := rows.Scan(&s.n, &s.first, &s.last, &s.newest, &s.events, &s.entries, &s.entriesDigest, &s.digest)
		s.entries, s.entriesDigest, s.digest = bytes.Clone(s.entries), bytes.Clone(s.entriesDigest), bytes.Clone(s.digest)
		seals = append(seals, s)
		return err
	}, `select n, first_id, last_id, newest_ms, events, entries, entries_digest, digest from {seals} where n > ? order by n limit ?`, after, limit)
	return seals, err
}

// dropEntries empties the seals of events that retention has deleted: what is left of them keeps
// the chain together.
func (l *sqlLog) dropEntries(ctx context.Context) error {
	first, _, err := l.Bounds(ctx)
	if err != nil || l.sealer == nil || l.Retention() <= 0 || first == 0 {
		return err
	}
	return l.InTx(ctx, func(tx tsql.Tx) error {
		_, err := tx.ExecContext(ctx, l.Write(`update {seals} set entries = ? where last_id < ? and newest_ms < {now} - ? and octet_length(entries) > 0`),
			[]byte{}, first, l.Retention().Milliseconds())
		return err
	})
}

package eventstore

import (
	"context"
	"database/sql"
	"encoding/binary"
	"hash/fnv"
	"io"
	"slices"
	"strconv"
	"strings"

	tsql "github.com/gotidings/tidings/transports/sql"
)

// indexBatch is how many events a transaction of the index takes.
const indexBatch = 1000

// hash finds a value of any length in an index. What it finds is compared.
func (k kind) hash(value string) int64 {
	h := fnv.New64a()
	_, _ = h.Write(binary.BigEndian.AppendUint16(nil, uint16(k))) //nolint:gosec // one of a few
	_, _ = io.WriteString(h, value)                               // never fails
	return int64(h.Sum64())                                       //nolint:gosec // any 64 bits will do
}

// catchUpIndex adds what is new in the log to the index.
func (l *sqlLog) catchUpIndex(ctx context.Context) error {
	if l.index == nil {
		return nil
	}
	_, err := l.index.CatchUp(ctx, indexBatch, func(ctx context.Context, tx tsql.Tx, entries []tsql.Entry) error {
		var columns [3][]int64
		for _, e := range entries {
			for _, key := range keysOf(e) {
				columns[0] = append(columns[0], e.ID)
				columns[1] = append(columns[1], int64(key.kind))
				columns[2] = append(columns[2], key.kind.hash(key.value))
			}
		}
		if len(columns[0]) == 0 {
			return nil
		}
		return l.insertIndex(ctx, tx, columns)
	})
	return err
}

// insertIndex writes rows with one statement. They are numbers, so they are written into it:
// parameters are limited. On PostgreSQL its text is always the same, since drivers keep
// what they have prepared.
func (l *sqlLog) insertIndex(ctx context.Context, tx tsql.Tx, columns [3][]int64) error {
	var b strings.Builder
	b.WriteString("insert into {event_index} (id, kind, hash) ")
	var args []any
	if l.cfg.Log.Dialect() == tsql.Postgres {
		b.WriteString("select * from unnest(string_to_array(?::text, ',')::bigint[], string_to_array(?::text, ',')::smallint[], string_to_array(?::text, ',')::bigint[])")
		for _, column := range columns {
			args = append(args, numbers(column))
		}
	} else {
		b.WriteString("values ")
		for i := range columns[0] {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString("(" + numbers([]int64{columns[0][i], columns[1][i], columns[2][i]}) + ")")
		}
	}
	_, err := tx.ExecContext(ctx, l.Write(b.String()), args...)
	return err
}

func numbers(list []int64) string {
	var b []byte
	for i, n := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return string(b)
}

// find looks into the index, once it is complete.
func (l *sqlLog) find(ctx context.Context, k kind, value string, r tsql.Range) (entries []tsql.Entry, scanned int64, more, ok bool, err error) {
	if l.index == nil {
		return nil, 0, false, false, nil
	}
	if err := l.catchUpIndex(ctx); err != nil {
		return nil, 0, false, true, err
	}
	direction := ""
	if r.Newest {
		direction = " desc"
	}
	var ids []int64
	err = l.query(ctx, l.DB(), func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, `select id from {event_index} where kind = ? and hash = ? and id > ? and id <= ? order by kind`+direction+`, hash`+direction+`, id`+direction+` limit ?`,
		int(k), k.hash(value), r.After, r.UpTo, r.Limit)
	if err != nil || len(ids) == 0 {
		return nil, 0, false, true, err
	}
	entries, n, err := l.Entries(ctx, ids, r.Newest)
	more = n < len(ids) || len(ids) == r.Limit
	return entries, ids[max(n, 1)-1], more, true, err
}

// pruneIndex deletes the rows of events that retention has deleted.
func (l *sqlLog) pruneIndex(ctx context.Context) error {
	first, _, err := l.Bounds(ctx)
	if err != nil || l.index == nil || first == 0 {
		return err
	}
	const batch = 1000 // ids of one statement, so that it locks little
	for {
		var ids []int64
		err := l.query(ctx, l.DB(), func(rows *sql.Rows) error {
			var id int64
			err := rows.Scan(&id)
			ids = append(ids, id)
			return err
		}, `select distinct id from {event_index} where id < ? order by id limit ?`, first, batch)
		if err != nil || len(ids) == 0 {
			return err
		}
		err = l.InTx(ctx, func(tx tsql.Tx) error {
			_, err := tx.ExecContext(ctx, l.Write(`delete from {event_index} where id <= ?`), slices.Max(ids))
			return err
		})
		if err != nil {
			return err
		}
	}
}

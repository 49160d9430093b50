package sql

import (
	"context"
	"slices"
	"strings"
)

// plain is what MySQL and SQLite have in common: SQL without arrays.
type plain struct{}

func (plain) rebind(query string) string { return query }

// byIndex has nothing to do: what is asked for is found by the only index that fits.
func (plain) byIndex(context.Context, *store, Tx) error { return nil }

func (plain) topicArgs(topic string, first, last int64) []any { return []any{topic, first, last} }

// Bounds of one INSERT: parameters are limited, and so are the bytes of a packet.
const (
	insertRows  = 500
	insertBytes = 4 << 20
)

// insertPart returns how many of rows go into the next statement.
func insertPart(rows []row, mostRows, mostBytes int) int {
	size := 0
	for i, r := range rows {
		size += r.size()
		if i > 0 && (i == mostRows || size > mostBytes) {
			return i
		}
	}
	return len(rows)
}

// insertPart is insertPart with the bounds of the server.
func (s *store) insertPart(rows []row) int {
	mostBytes := insertBytes
	if s.maxRow > 0 {
		mostBytes = min(mostBytes, s.maxRow)
	}
	return insertPart(rows, insertRows, mostBytes)
}

// insert writes rows. published is the expression of the time of the first row of a statement,
// with its parameters.
func (plain) insert(ctx context.Context, s *store, q Tx, rows []row, published string, publishedArgs ...any) error {
	for len(rows) > 0 {
		part := rows[:s.insertPart(rows)]
		rows = rows[len(part):]
		const columns = 6
		args := make([]any, 0, columns*len(part)+len(publishedArgs))
		for i, r := range part {
			args = append(args, r.topic, r.eventID, r.source, r.key, r.metadata, r.payload)
			if i == 0 {
				args = append(args, publishedArgs...)
			}
		}
		values := slices.Repeat([]string{"(?, ?, ?, ?, ?, ?, {now})"}, len(part))
		values[0] = "(?, ?, ?, ?, ?, ?, " + published + ")"
		_, err := s.exec(ctx, q, `insert into {messages} (topic, event_id, source, partition_key, metadata, payload, published_ms) values `+strings.Join(values, ", "), args...)
		if err != nil {
			return err
		}
	}
	return nil
}

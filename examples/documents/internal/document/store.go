package document

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/outbox"
)

// Store keeps documents in the service's database. Each change is committed together with
// the event that tells of it, which the outbox sends.
type Store struct {
	db *sql.DB
	ob *outbox.Outbox
}

// NewStore makes a store on tables that [Schema] has made.
func NewStore(db *sql.DB, ob *outbox.Outbox) *Store { return &Store{db: db, ob: ob} }

// Schema makes the table. It is the same in SQLite and PostgreSQL; times are milliseconds
// since 1970, durations milliseconds.
var Schema = []string{
	`create table if not exists documents (
		id varchar(36) primary key, owner varchar(200) not null, name varchar(200) not null, content text not null,
		status varchar(20) not null, step varchar(20) not null, progress integer not null, remaining bigint not null,
		results text not null, body text not null, error text not null,
		version bigint not null, created bigint not null, updated bigint not null)`,
	`create index if not exists documents_newest on documents (owner, created, id)`,
}

const columns = `id, owner, name, content, status, step, progress, remaining, results, body, error, version, created, updated`

// listed are the columns of a list, in which a megabyte of each document would be too much:
// without the texts, each as an empty one.
const listed = `id, owner, name, '', status, step, progress, remaining, results, '', error, version, created, updated`

// Add stores a new document and publishes [Requested]. When the owner has one of that id
// it returns that, and nothing happens: the request was sent again. Somebody else's id is
// [ErrConflict].
func (s *Store) Add(ctx context.Context, d Document) (Document, error) {
	exists := false
	err := s.ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error {
		results, err := json.Marshal(d.Results)
		if err != nil {
			return err
		}
		done, err := tx.ExecContext(ctx, `insert into documents (`+columns+`)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) on conflict (id) do nothing`,
			d.ID, d.Owner, d.Name, d.Content, d.Status, d.Step, d.Progress, d.Remaining.Milliseconds(), string(results), d.Results.Text, d.Error,
			d.Version, d.CreatedAt.UnixMilli(), d.UpdatedAt.UnixMilli())
		if err != nil {
			return fmt.Errorf("add document: %w", err)
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			exists = true
			return err
		}
		return s.publish(ctx, tx, &d)
	})
	if err != nil || !exists {
		return d, err
	}
	known, err := s.Of(ctx, d.Owner, d.ID)
	if errors.Is(err, ErrNotFound) {
		err = ErrConflict
	}
	return known, err
}

// Save stores a change of a document and publishes the event that tells of it:
// [Progressed], or one of package events when it is final. The error is [ErrConflict] when
// the document is no longer what it was when it was read.
func (s *Store) Save(ctx context.Context, d *Document) error {
	next := *d
	next.Version++
	next.UpdatedAt = time.Now().Truncate(time.Millisecond)
	err := s.ob.InTx(ctx, nil, func(ctx context.Context, tx *sql.Tx) error {
		results, err := json.Marshal(next.Results)
		if err != nil {
			return err
		}
		done, err := tx.ExecContext(ctx, `update documents set status = $1, step = $2, progress = $3, remaining = $4, results = $5, body = $6,
			error = $7, version = $8, updated = $9 where id = $10 and version = $11`,
			next.Status, next.Step, next.Progress, next.Remaining.Milliseconds(), string(results), next.Results.Text,
			next.Error, next.Version, next.UpdatedAt.UnixMilli(), next.ID, d.Version)
		if err != nil {
			return fmt.Errorf("save document: %w", err)
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			return errors.Join(ErrConflict, err)
		}
		return s.publish(ctx, tx, &next)
	})
	if err == nil {
		*d = next
	}
	return err
}

// publish writes the event of a document, whose subject is the document, by which the event
// store finds it.
func (s *Store) publish(ctx context.Context, tx *sql.Tx, d *Document) error {
	event, err := d.event()
	if err != nil {
		return err
	}
	return s.ob.Publish(ctx, tx, outbox.With(event, bus.WithSubject(d.ID)))
}

// Get returns a document, whoever owns it, or [ErrNotFound].
func (s *Store) Get(ctx context.Context, id string) (Document, error) {
	if !ValidID(id) { // which PostgreSQL might not even take
		return Document{}, ErrNotFound
	}
	return scan(s.db.QueryRowContext(ctx, `select `+columns+` from documents where id = $1`, id))
}

// Of returns a document of an owner, or [ErrNotFound].
func (s *Store) Of(ctx context.Context, owner, id string) (Document, error) {
	d, err := s.Get(ctx, id)
	if err == nil && d.Owner != owner {
		return Document{}, ErrNotFound
	}
	return d, err
}

// Query says which documents of an owner.
type Query struct {
	Owner  string
	Status Status // "" means any
	Before string // id of one of them, see ValidID: those that were submitted before it; "" means the newest
	Limit  int    // at most so many; 0 means 100
}

// List returns documents, without their texts, the newest first. The error is [ErrNotFound] when
// the owner has none with the id of Before.
func (s *Store) List(ctx context.Context, q Query) (list []Document, err error) {
	if q.Limit == 0 {
		q.Limit = 100
	}
	created, id := int64(math.MaxInt64), ""
	if q.Before != "" {
		before, err := scan(s.db.QueryRowContext(ctx, `select `+listed+` from documents where owner = $1 and id = $2`, q.Owner, q.Before))
		if err != nil {
			return nil, err
		}
		created, id = before.CreatedAt.UnixMilli(), before.ID
	}
	rows, err := s.db.QueryContext(ctx, `select `+listed+` from documents
		where owner = $1 and ($2 = '' or status = $2) and (created, id) < ($3, $4) order by created desc, id desc limit $5`,
		q.Owner, string(q.Status), created, id, q.Limit)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		d, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, rows.Err()
}

func scan(row interface{ Scan(...any) error }) (d Document, err error) {
	var results string
	var remaining, created, updated int64
	err = row.Scan(&d.ID, &d.Owner, &d.Name, &d.Content, &d.Status, &d.Step, &d.Progress, &remaining, &results, &d.Results.Text, &d.Error,
		&d.Version, &created, &updated)
	if errors.Is(err, sql.ErrNoRows) {
		return d, ErrNotFound
	}
	if err != nil {
		return d, err
	}
	d.Remaining = time.Duration(remaining) * time.Millisecond
	d.CreatedAt, d.UpdatedAt = time.UnixMilli(created).UTC(), time.UnixMilli(updated).UTC()
	text := d.Results.Text
	if err := json.Unmarshal([]byte(results), &d.Results); err != nil {
		return d, fmt.Errorf("results of document %s: %w", d.ID, err)
	}
	d.Results.Text = text
	return d, nil
}
